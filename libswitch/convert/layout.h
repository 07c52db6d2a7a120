// How one side's bytes become the other's: transposition and dtypes. Private to convert/.
#pragma once

#include <cstdint>
#include <string>

#include "libswitch/io/tensor_archive.h"

namespace sw {

/// Rows [first, first + count) of the transpose of `source` [rows, columns], elements of `bytes`
/// bytes (2, 4 or 8).
void transpose_rows(const char* source, int64_t rows, int64_t columns, int64_t bytes, int64_t first,
                    int64_t count, char* out);

/// `count` elements of `type` as the dtype that holds them exactly; equal types are copied.
void convert_elements(const char* source, ElementType type, int64_t count, char* out, DType dtype);

/// IEEE binary16 to binary32, exactly.
float float_from_half(uint16_t half);

}  // namespace sw
