// CRC-32C (Castagnoli), which files of other tools ask for; our own formats use XXH3.
#pragma once

#include <cstdint>
#include <string_view>

namespace sw {

/// RFC 3720, appendix B.4: "123456789" gives e3069283. A table a byte at a time: some 400 MB/s,
/// for records of a few kilobytes.
uint32_t crc32c(std::string_view bytes);

}  // namespace sw
