// Training of a SentencePiece vocabulary with T5's layout of ids.
#pragma once

#include <cstdint>
#include <string>

#include "libswitch/data/text_source.h"

namespace sw {

struct VocabularyOptions {
  int64_t pieces = 32000;              // pad, end of sequence and unknown included
  std::string model_type = "unigram";  // unigram or bpe
  double character_coverage = 0.9995;  // share of characters that must have a piece
  bool byte_fallback = false;          // spell unknown characters as bytes (T5: no)
  /// Text that training holds in memory. Of a larger corpus a uniform sample of lines of this size
  /// is taken, a pure function of text and seed. Training takes about 26 times as much memory.
  int64_t sample_bytes = int64_t{32} << 20;
  uint64_t seed = 0;
};

struct TrainedVocabulary {
  std::string model;          // bytes of the .model file
  int64_t corpus_bytes = 0;   // text read
  int64_t sampled_bytes = 0;  // text trained on
  int64_t sampled_lines = 0;
};

/// Reads `source` to its end and trains. The result depends on text, options and seed only, not on
/// the number of cores. Throws usage for an unknown model type and for more pieces than the text
/// allows (naming the largest number it does), corrupt for bad text.
TrainedVocabulary train_vocabulary(TextSource& source, const VocabularyOptions& options);

}  // namespace sw
