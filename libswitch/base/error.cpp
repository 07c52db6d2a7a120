#include "libswitch/base/error.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace sw {

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::usage: return 2;
    case ErrorKind::corrupt: return 65;
    case ErrorKind::missing: return 66;
    case ErrorKind::device: return 69;
    case ErrorKind::internal: return 70;
    case ErrorKind::cannot_create: return 73;
    case ErrorKind::io: return 74;
    case ErrorKind::stopped: return 75;
    case ErrorKind::diverged: return 80;
    case ErrorKind::replicas: return 81;
    case ErrorKind::hang: return 82;
  }
  return 70;
}

int edit_distance(const std::string& a, const std::string& b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace sw
