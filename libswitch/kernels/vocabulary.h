// The part of a vocabulary that a table holds when its rows are cut over ranks.
#pragma once

#include <cstdint>

namespace sw::kernels {

/// Rows [first, first + rows of the table) of a table of `total` rows.
struct VocabularyPart {
  int64_t first = 0;
  int64_t total = 0;  // 0: the table is whole
};

}  // namespace sw::kernels
