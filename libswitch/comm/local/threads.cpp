#include "libswitch/comm/local/threads.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <thread>
#include <tuple>

#include "libswitch/base/error.h"
#include "libswitch/base/parallel.h"
#include "libswitch/comm/local/single.h"
#include "libswitch/comm/message_group.h"

namespace sw {
namespace {

/// What has been sent to one rank and not yet received.
class Mailbox {
 public:
  using Key = std::tuple<int64_t, int64_t, int64_t>;  // group, sender's rank in it, tag

  void put(const Key& key, const void* data, int64_t bytes) {
    std::vector<char> copy(static_cast<size_t>(bytes));
    if (bytes > 0) std::memcpy(copy.data(), data, copy.size());
    const std::lock_guard lock(mutex_);
    messages_[key].push_back(std::move(copy));
  }

  bool take(const Key& key, void* data, int64_t bytes) {
    std::vector<char> message;
    {
      const std::lock_guard lock(mutex_);
      const auto found = messages_.find(key);
      if (found == messages_.end()) return false;
      message = std::move(found->second.front());
      found->second.pop_front();
      if (found->second.empty()) messages_.erase(found);
    }
    SW_CHECK(
        std::ssize(message) == bytes, internal,
        "message from rank {} in collective #{}: {} bytes, expected {}: ranks disagree on sizes",
        std::get<1>(key), std::get<2>(key), message.size(), bytes);
    if (bytes > 0) std::memcpy(data, message.data(), message.size());
    return true;
  }

 private:
  std::mutex mutex_;
  std::map<Key, std::deque<std::vector<char>>> messages_;
};

class Sent final : public Message {
 public:
  bool test() override { return true; }
};

class Receiving final : public Message {
 public:
  Receiving(Mailbox& mailbox, Mailbox::Key key, void* data, int64_t bytes)
      : mailbox_(mailbox), key_(key), data_(data), bytes_(bytes) {}
  bool test() override { return mailbox_.take(key_, data_, bytes_); }

 private:
  Mailbox& mailbox_;
  Mailbox::Key key_;
  void* data_;
  int64_t bytes_;
};

class ThreadTransport final : public Transport {
 public:
  ThreadTransport(std::vector<Mailbox>& mailboxes, std::vector<int64_t> world_ranks, int64_t rank,
                  int64_t group)
      : mailboxes_(mailboxes), world_ranks_(std::move(world_ranks)), rank_(rank), group_(group) {}

  std::unique_ptr<Message> send(int64_t to, int64_t tag, const void* data, int64_t bytes) override {
    mailbox(to).put({group_, rank_, tag}, data, bytes);
    return std::make_unique<Sent>();
  }
  std::unique_ptr<Message> receive(int64_t from, int64_t tag, void* data, int64_t bytes) override {
    return std::make_unique<Receiving>(mailbox(rank_), Mailbox::Key{group_, from, tag}, data,
                                       bytes);
  }

 private:
  Mailbox& mailbox(int64_t rank) {
    return mailboxes_[static_cast<size_t>(world_ranks_[static_cast<size_t>(rank)])];
  }
  std::vector<Mailbox>& mailboxes_;
  std::vector<int64_t> world_ranks_;
  int64_t rank_, group_;
};

class ThreadWorld final : public World {
 public:
  ThreadWorld(std::vector<Mailbox>& mailboxes, const AbortFlag& abort, int64_t rank)
      : mailboxes_(mailboxes) {
    state_.rank = rank;
    state_.host = host_name();
    state_.crowded = std::ssize(mailboxes) > usable_cores();
    state_.abort = &abort;
    std::vector<int64_t> all(mailboxes.size());
    for (size_t r = 0; r < all.size(); ++r) all[r] = static_cast<int64_t>(r);
    group_ = make_group("world", all);
  }

  Group& group() override { return *group_; }
  std::unique_ptr<Group> make_group(std::string name,
                                    const std::vector<int64_t>& world_ranks) override {
    const int64_t number = groups_++;
    const auto own = std::find(world_ranks.begin(), world_ranks.end(), state_.rank);
    if (own == world_ranks.end()) return nullptr;
    const int64_t rank = own - world_ranks.begin();
    return std::make_unique<MessageGroup>(
        std::move(name), world_ranks, rank,
        std::make_unique<ThreadTransport>(mailboxes_, world_ranks, rank, number), state_);
  }
  const std::string& host() const override { return state_.host; }
  int64_t local_size() const override { return std::ssize(mailboxes_); }
  int64_t local_rank() const override { return state_.rank; }
  int64_t local_cores() const override { return usable_cores(); }
  CommTrace& trace() override { return state_.trace; }

 private:
  std::vector<Mailbox>& mailboxes_;
  RankState state_;
  int64_t groups_ = 0;
  std::unique_ptr<Group> group_;
};

/// Threads of parallel loops while ranks share the process.
class ThreadsPerRank {
 public:
  explicit ThreadsPerRank(int64_t ranks) : before_(num_threads()) {
    set_threads(std::max(1, before_ / static_cast<int>(ranks)));
  }
  ~ThreadsPerRank() { set_threads(before_); }

 private:
  int before_;
};

}  // namespace

void run_ranks(int64_t ranks, const std::function<void(World&)>& fn) {
  SW_CHECK(ranks >= 1, internal, "run_ranks: {} ranks, expected at least 1", ranks);
  const ThreadsPerRank threads_per_rank(ranks);
  std::vector<Mailbox> mailboxes(static_cast<size_t>(ranks));
  AbortFlag abort;
  std::mutex mutex;
  std::exception_ptr first;
  const auto run = [&](int64_t rank) {
    const auto failed = [&](const std::string& what) {
      const std::lock_guard lock(mutex);
      if (!first) first = std::current_exception();
      abort.set(fmt::format("rank {} failed: {}", rank, what));
    };
    try {
      ThreadWorld world(mailboxes, abort, rank);
      fn(world);
    } catch (const std::exception& error) {
      failed(error.what());
    } catch (...) {
      failed("an unknown exception");
    }
  };
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < ranks; ++rank) threads.emplace_back(run, rank);
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace sw
