#include "libswitch/tape/tape.h"

namespace sw {

void Tape::backward() {
  while (!records_.empty()) {
    records_.back()();
    records_.pop_back();
  }
}

}  // namespace sw
