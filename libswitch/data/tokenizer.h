// Text to token ids and back: a SentencePiece model with T5's layout of ids.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sw {

/// Ids: pad 0, end of sequence 1, unknown 2, the model's other pieces, then 100 sentinels in
/// descending order: sentinel k is vocab_size() - 1 - k (Raffel et al. 2020; T5's own model has
/// 32,000 pieces, so its first sentinel is 32099). In text a sentinel reads <extra_id_k>.
class Tokenizer {
 public:
  static constexpr int32_t kPad = 0, kEos = 1, kUnk = 2;
  static constexpr int kSentinels = 100;
  static constexpr int64_t kPaddingMultiple = 128;

  /// Throws missing, or corrupt for a file that is no SentencePiece model, breaks the bounds of
  /// check_sentencepiece_model, or has another layout of ids.
  static Tokenizer load(const std::filesystem::path& path);
  /// From the bytes of a model file; `name` stands in messages.
  static Tokenizer from_bytes(std::string model, const std::string& name);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  int64_t pieces() const { return pieces_; }
  /// Pieces and sentinels: ids are in [0, vocab_size()).
  int64_t vocab_size() const { return pieces_ + kSentinels; }
  /// Rows of the embedding table: vocab_size() rounded up to a multiple of 128.
  int64_t padded_vocab_size() const {
    return (vocab_size() + kPaddingMultiple - 1) / kPaddingMultiple * kPaddingMultiple;
  }
  int32_t sentinel(int k) const { return static_cast<int32_t>(vocab_size() - 1 - k); }

  /// Appends the ids of `text` to `ids`, without end-of-sequence. <extra_id_k> becomes its
  /// sentinel; spaces next to it belong to it (as Hugging Face's T5 tokenizer does). A text of over
  /// 1 MiB is encoded in parts cut at spaces where the model allows it, to bound memory.
  /// Thread-safe.
  void encode(std::string_view text, std::vector<int32_t>& ids) const;
  std::vector<int32_t> encode(std::string_view text) const;

  /// The text of `ids`; pad and end-of-sequence give nothing, ids outside the vocabulary read as
  /// unknown. Thread-safe.
  std::string decode(std::span<const int32_t> ids) const;

  /// The piece itself, spaces shown as U+2581; <extra_id_k> for a sentinel; "<id>" outside the
  /// vocabulary.
  std::string piece(int32_t id) const;

  /// The model file, for embedding in a checkpoint, and its SHA-256, which names the vocabulary.
  const std::string& model_bytes() const { return bytes_; }
  const std::array<uint8_t, 32>& sha256() const { return sha256_; }

 private:
  struct Processor;
  Tokenizer();
  void encode_plain(std::string_view text, std::vector<int32_t>& ids) const;

  std::unique_ptr<Processor> processor_;
  std::string bytes_;
  std::array<uint8_t, 32> sha256_{};
  int64_t pieces_ = 0;
  bool separable_ = false;
};

}  // namespace sw
