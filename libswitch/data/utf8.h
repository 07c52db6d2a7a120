// UTF-8 validation.
#pragma once

#include <cstdint>
#include <string_view>

namespace sw {

/// Offset of the first byte that is not part of well-formed UTF-8 (Unicode 15, table 3-7: no
/// overlong forms, no surrogates, nothing above U+10FFFF), or -1 when all of `text` is.
int64_t find_invalid_utf8(std::string_view text);

}  // namespace sw
