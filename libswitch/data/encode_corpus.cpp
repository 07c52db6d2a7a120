#include "libswitch/data/encode_corpus.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

namespace sw {
namespace {

// Text handed to a thread at a time: enough to make handing over cheap, little enough to keep all
// threads busy to the end.
constexpr size_t kChunkBytes = size_t{256} << 10;
constexpr size_t kChunksPerThread = 4;

struct EncodedChunk {
  std::vector<int32_t> tokens;
  std::vector<size_t> lengths;  // of the documents
};

EncodedChunk encode_chunk(const TextSource& source, const Tokenizer& tokenizer,
                          std::vector<TextRecord> records) {
  EncodedChunk out;
  for (TextRecord& record : records) {
    const size_t before = out.tokens.size();
    tokenizer.encode(source.document(std::move(record)), out.tokens);
    out.lengths.push_back(out.tokens.size() - before);
  }
  return out;
}

// Threads that take tasks from a queue. Tasks that nobody waits for any more are dropped.
class Workers {
 public:
  explicit Workers(int count) {
    for (int i = 0; i < count; ++i) threads_.emplace_back([this] { run(); });
  }
  ~Workers() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      queue_.clear();
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  std::future<EncodedChunk> submit(std::packaged_task<EncodedChunk()> task) {
    std::future<EncodedChunk> result = task.get_future();
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(std::move(task));
    }
    changed_.notify_one();
    return result;
  }

 private:
  void run() {
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
      if (stop_) return;
      std::packaged_task<EncodedChunk()> task = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      task();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::packaged_task<EncodedChunk()>> queue_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

EncodeTotals encode_corpus(TextSource& source, const Tokenizer& tokenizer, ShardWriter& writer,
                           int threads, const std::function<void(const EncodeTotals&)>& progress) {
  threads = std::max(threads, 1);
  EncodeTotals totals;
  std::deque<std::future<EncodedChunk>> pending;
  Workers workers(threads);
  const auto write_oldest = [&] {
    const EncodedChunk chunk = pending.front().get();
    pending.pop_front();
    std::span<const int32_t> tokens(chunk.tokens);
    for (const size_t length : chunk.lengths) {
      writer.append(tokens.first(length));
      tokens = tokens.subspan(length);
      totals.documents += length > 0;
      totals.tokens += length;
    }
    totals.bytes = source.bytes_read();
    if (progress) progress(totals);
  };
  bool more = true;
  while (more) {
    std::vector<TextRecord> records;
    size_t bytes = 0;
    std::exception_ptr error;
    try {
      TextRecord record;
      while (bytes < kChunkBytes && (more = source.next_record(record))) {
        bytes += record.raw.size();
        records.push_back(std::move(record));
      }
    } catch (...) {
      error = std::current_exception();
      more = false;
    }
    if (!records.empty()) {
      pending.push_back(workers.submit(std::packaged_task<EncodedChunk()>(
          [&source, &tokenizer, records = std::move(records)]() mutable {
            return encode_chunk(source, tokenizer, std::move(records));
          })));
    }
    const size_t keep = more ? kChunksPerThread * static_cast<size_t>(threads) - 1 : 0;
    while (pending.size() > keep) write_oldest();
    // A fault of the reader comes after those of the documents before it.
    if (error != nullptr) std::rethrow_exception(error);
  }
  totals.bytes = source.bytes_read();
  return totals;
}

}  // namespace sw
