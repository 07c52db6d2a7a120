#include "libswitch/data/sentencepiece_model.h"

#include <cmath>
#include <cstring>

#include "libswitch/base/error.h"

namespace sw {
namespace {

constexpr size_t kMaxModelBytes = size_t{64} << 20;
constexpr int64_t kMaxPieces = 1'000'000;
constexpr size_t kMaxPieceBytes = 512;
constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581, a space inside a piece

// Wire format of protocol buffers: varint (0), 64-bit (1), bytes (2), 32-bit (5).
class ProtoReader {
 public:
  ProtoReader(std::string_view bytes, size_t base, const std::string& name)
      : bytes_(bytes), base_(base), name_(name) {}

  bool next() {
    if (at_ == bytes_.size()) return false;
    start_ = at_;
    const uint64_t tag = varint();
    field = static_cast<uint32_t>(tag >> 3);
    wire = static_cast<uint32_t>(tag & 7);
    if (tag >> 32 != 0 || field == 0) bad("a field tag out of range");
    switch (wire) {
      case 0: value = varint(); return true;
      case 1: take(8); return true;
      case 2: {
        const uint64_t length = varint();
        if (length > bytes_.size() - at_) bad("a field longer than its message");
        payload_base = base_ + at_;
        payload = bytes_.substr(at_, length);
        at_ += length;
        return true;
      }
      case 5: payload = take(4); return true;
      default: bad("an unknown field type");
    }
  }

  [[noreturn]] void bad(const char* what) const {
    fail(ErrorKind::corrupt, "{}: not a valid SentencePiece model: {} at byte {}", name_, what,
         base_ + start_);
  }

  uint32_t field = 0, wire = 0;
  uint64_t value = 0;
  std::string_view payload;
  size_t payload_base = 0;

 private:
  std::string_view take(size_t n) {
    if (n > bytes_.size() - at_) bad("a truncated field");
    at_ += n;
    return bytes_.substr(at_ - n, n);
  }
  uint64_t varint() {
    uint64_t result = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      result |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return result;
    }
    bad("an endless number");
  }

  std::string_view bytes_;
  size_t base_;
  const std::string& name_;
  size_t at_ = 0, start_ = 0;
};

uint32_t u32_at(std::string_view bytes, size_t offset) {
  uint32_t value;
  std::memcpy(&value, bytes.data() + offset, 4);
  return value;
}

// u32 trie bytes, a Darts-clone double array, then zero-terminated replacements. Every step of a
// walk over the array must stay inside it, and whatever it takes for a leaf, marked as one or not,
// must point into the replacements.
void check_character_map(std::string_view map, const ProtoReader& at) {
  if (map.empty()) return;
  if (map.size() < 8) at.bad("a character map too short");
  const size_t trie_bytes = u32_at(map, 0);
  if (trie_bytes % 4 != 0 || trie_bytes == 0 || trie_bytes >= map.size() - 4) {
    at.bad("a character map whose trie does not fit");
  }
  const std::string_view replacements = map.substr(4 + trie_bytes);
  if (replacements.back() != '\0') at.bad("a character map without final zero");
  const uint64_t units = trie_bytes / 4;
  const auto check_leaf = [&](uint32_t unit) {
    if ((unit & 0x7FFFFFFFu) >= replacements.size()) at.bad("a character map leaf out of range");
  };
  for (uint64_t i = 0; i < units; ++i) {
    const uint32_t unit = u32_at(map, 4 + 4 * i);
    if (unit >> 31 != 0) {
      check_leaf(unit);
    } else {
      const uint64_t offset = uint64_t{unit >> 10} << ((unit & (1u << 9)) >> 6);
      if (((i ^ offset) | 0xFF) >= units) at.bad("a character map link out of range");
      const bool has_leaf = (unit >> 8 & 1) != 0;
      if (has_leaf) check_leaf(u32_at(map, 4 + 4 * (i ^ offset)));
    }
  }
}

void check_piece(std::string_view bytes, size_t base, const std::string& name,
                 SentencePieceModelInfo& info) {
  ProtoReader piece(bytes, base, name);
  std::string_view text;
  uint64_t type = 1;
  while (piece.next()) {
    if (piece.field == 1 && piece.wire == 2) {
      text = piece.payload;
      if (text.size() > kMaxPieceBytes) piece.bad("a piece over 512 bytes");
      // The library's trie takes pieces as C strings and ends the process when one is empty.
      if (text.find('\0') != text.npos) piece.bad("a piece with a zero byte");
    } else if (piece.field == 2 && piece.wire == 5) {
      float score;
      std::memcpy(&score, piece.payload.data(), 4);
      if (!std::isfinite(score)) piece.bad("a score that is not finite");
    } else if (piece.field == 3 && piece.wire == 0) {
      type = piece.value;
    }
  }
  if (text.empty()) piece.bad("a piece without text");
  constexpr uint64_t kNormal = 1, kUserDefined = 4;
  if (type == kUserDefined || (type == kNormal && text.find(kSpaceSymbol, 1) != text.npos)) {
    info.separable_at_spaces = false;
  }
}

}  // namespace

SentencePieceModelInfo check_sentencepiece_model(std::string_view bytes, const std::string& name) {
  SW_CHECK(!bytes.empty(), corrupt, "{}: empty file, expected a SentencePiece model", name);
  SW_CHECK(bytes.size() <= kMaxModelBytes, corrupt,
           "{}: {} bytes, a SentencePiece model has at most {}", name, bytes.size(),
           kMaxModelBytes);
  SentencePieceModelInfo info;
  ProtoReader model(bytes, 0, name);
  while (model.next()) {
    if (model.field <= 5 && model.wire != 2) model.bad("a field of unexpected type");
    if (model.field == 1) {
      if (++info.pieces > kMaxPieces) model.bad("more than 1,000,000 pieces");
      check_piece(model.payload, model.payload_base, name, info);
    } else if (model.field == 2) {  // TrainerSpec
      ProtoReader trainer(model.payload, model.payload_base, name);
      while (trainer.next()) {
        if (trainer.field == 24 && trainer.value != 0) info.separable_at_spaces = false;  // suffix
      }
    } else if (model.field == 3 || model.field == 5) {  // NormalizerSpec, denormaliser
      ProtoReader normaliser(model.payload, model.payload_base, name);
      while (normaliser.next()) {
        if (normaliser.field == 2) {
          if (normaliser.wire != 2) normaliser.bad("a field of unexpected type");
          check_character_map(normaliser.payload, normaliser);
        } else if (normaliser.field >= 3 && normaliser.field <= 5 && normaliser.value == 0) {
          info.separable_at_spaces = false;  // no space in front, runs kept, or spaces not escaped
        }
      }
    }
  }
  SW_CHECK(info.pieces > 0, corrupt, "{}: not a SentencePiece model: it holds no pieces", name);
  return info;
}

}  // namespace sw
