#include "libswitch/train/gather_parts.h"

#include <algorithm>

namespace sw {

std::vector<Tensor> gather_parts(Group& group, const std::vector<Tensor>& parts) {
  if (group.size() == 1 || parts.empty()) return parts;
  int64_t total = 0;
  for (const Tensor& part : parts) total += part.elements();
  Tensor sent = Tensor::empty({total}, DType::f64);
  Tensor received = Tensor::empty({group.size() * total}, DType::f64);
  int64_t at = 0;
  for (const Tensor& part : parts) {
    std::copy_n(part.data<double>(), part.elements(), sent.data<double>() + at);
    at += part.elements();
  }
  group.all_gather(received, sent);
  std::vector<Tensor> wholes;
  at = 0;
  for (const Tensor& part : parts) {
    Shape shape{group.size() * part.size(0)};
    for (int d = 1; d < part.rank(); ++d) shape.push_back(part.size(d));
    Tensor whole = Tensor::empty(shape, DType::f64);
    for (int64_t rank = 0; rank < group.size(); ++rank) {
      std::copy_n(received.data<double>() + rank * total + at, part.elements(),
                  whole.data<double>() + rank * part.elements());
    }
    at += part.elements();
    wholes.push_back(std::move(whole));
  }
  return wholes;
}

}  // namespace sw
