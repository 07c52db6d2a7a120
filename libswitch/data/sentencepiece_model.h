// The bounds that a SentencePiece model file must keep before the library parses it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sw {

/// What a walk over the protocol buffer of a model learns without building anything.
struct SentencePieceModelInfo {
  int64_t pieces = 0;
  /// Pieces begin at whitespace and never reach over one, and the normaliser adds a space in front
  /// and collapses runs: text cut at a space encodes to the same pieces as the whole.
  bool separable_at_spaces = true;
};

/// Walks the bytes of a model (sentencepiece_model.proto) and throws corrupt, naming `name` and the
/// byte, unless: at most 64 MiB and 1,000,000 pieces, no piece over 512 bytes, every score finite,
/// every length inside the file, and a character map whose trie cannot lead outside its tables
/// (SentencePiece before 0.2.1 trusts all of these).
SentencePieceModelInfo check_sentencepiece_model(std::string_view bytes, const std::string& name);

}  // namespace sw
