#include "libswitch/comm/mpi/mpi_transport.h"

#include <mpi.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/comm/local/single.h"

namespace sw {
namespace {

std::atomic<int64_t> largest_message{int64_t{1} << 30};  // well below the 2 GiB an int can count

class MpiMessage final : public Message {
 public:
  explicit MpiMessage(int64_t expected) : expected_(expected) {}
  // Abandoned by a rank about to leave; what the other side does no longer matters.
  ~MpiMessage() override {
    for (MPI_Request& request : requests_) {
      if (request == MPI_REQUEST_NULL || !mpi_alive()) continue;
      MPI_Cancel(&request);
      MPI_Request_free(&request);
    }
  }
  std::vector<MPI_Request>& requests() { return requests_; }

  bool test() override {
    while (done_ < requests_.size()) {
      int flag = 0;
      MPI_Status status;
      check_mpi(MPI_Test(&requests_[done_], &flag, &status), "MPI_Test");
      if (flag == 0) return false;
      if (expected_ >= 0) {
        int count = 0;
        check_mpi(MPI_Get_count(&status, MPI_BYTE, &count), "MPI_Get_count");
        received_ += count;
      }
      ++done_;
    }
    SW_CHECK(expected_ < 0 || received_ == expected_, internal,
             "message of {} bytes received, expected {}: ranks disagree on sizes", received_,
             expected_);
    return true;
  }

 private:
  std::vector<MPI_Request> requests_;  // of the pieces, in order
  size_t done_ = 0;
  int64_t expected_, received_ = 0;  // -1 when sending
};

class MpiTransport final : public Transport {
 public:
  explicit MpiTransport(MPI_Comm communicator) : communicator_(communicator) {
    int* bound = nullptr;
    int found = 0;
    check_mpi(MPI_Comm_get_attr(communicator_, MPI_TAG_UB, &bound, &found), "MPI_Comm_get_attr");
    tags_ = found != 0 ? int64_t{*bound} : 32767;
  }
  ~MpiTransport() override {
    // Frees nothing while an error takes the rank down: others may be beyond answering.
    if (mpi_alive() && std::uncaught_exceptions() == 0) MPI_Comm_free(&communicator_);
  }

  std::unique_ptr<Message> send(int64_t to, int64_t tag, const void* data, int64_t bytes) override {
    auto message = std::make_unique<MpiMessage>(-1);
    for_pieces(*message, bytes, [&](int64_t at, int size, MPI_Request* request) {
      check_mpi(MPI_Isend(static_cast<const char*>(data) + at, size, MPI_BYTE, static_cast<int>(to),
                          tag_of(tag), communicator_, request),
                "MPI_Isend");
    });
    return message;
  }
  std::unique_ptr<Message> receive(int64_t from, int64_t tag, void* data, int64_t bytes) override {
    auto message = std::make_unique<MpiMessage>(bytes);
    for_pieces(*message, bytes, [&](int64_t at, int size, MPI_Request* request) {
      check_mpi(MPI_Irecv(static_cast<char*>(data) + at, size, MPI_BYTE, static_cast<int>(from),
                          tag_of(tag), communicator_, request),
                "MPI_Irecv");
    });
    return message;
  }

 private:
  // Both sides cut alike, and pieces with one tag arrive in order. At least one, also of no bytes.
  template <class Post>
  static void for_pieces(MpiMessage& message, int64_t bytes, const Post& post) {
    const int64_t largest = largest_message;
    int64_t at = 0;
    do {
      const int64_t size = std::min(bytes - at, largest);
      post(at, static_cast<int>(size), &message.requests().emplace_back(MPI_REQUEST_NULL));
      at += size;
    } while (at < bytes);
  }
  // Numbers may repeat when so many collectives lie between that none can be under way still.
  int tag_of(int64_t number) const { return static_cast<int>(number % tags_); }

  MPI_Comm communicator_;
  int64_t tags_ = 0;
};

}  // namespace

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0, rank = -1;
  MPI_Error_string(code, text, &length);
  if (mpi_alive()) MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  fail(ErrorKind::device, "rank {} ({}): {}: {}", rank, host_name(), call, text);
}

bool mpi_alive() {
  int begun = 0, ended = 0;
  MPI_Initialized(&begun);
  MPI_Finalized(&ended);
  return begun != 0 && ended == 0;
}

std::unique_ptr<Transport> make_mpi_transport(int communicator) {
  return std::make_unique<MpiTransport>(MPI_Comm_f2c(communicator));
}

void set_largest_mpi_message(int64_t bytes) { largest_message = bytes; }

}  // namespace sw
