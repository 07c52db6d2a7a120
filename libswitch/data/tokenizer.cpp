#include "libswitch/data/tokenizer.h"

#include <sentencepiece_processor.h>

#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/hash.h"
#include "libswitch/data/sentencepiece_model.h"

namespace sw {
namespace {

constexpr size_t kLongTextBytes = size_t{1} << 20;
constexpr std::string_view kSentinelPrefix = "<extra_id_";
constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";

// The sentinel that `text` opens with, and the length of its name; k = -1 when there is none.
struct SentinelName {
  int k = -1;
  size_t length = 0;
};
SentinelName parse_sentinel(std::string_view text) {
  if (text.substr(0, kSentinelPrefix.size()) != kSentinelPrefix) return {};
  size_t at = kSentinelPrefix.size();
  int k = 0, digits = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9' && digits < 3) {
    k = 10 * k + (text[at++] - '0'), ++digits;
  }
  const bool leading_zero = digits > 1 && text[kSentinelPrefix.size()] == '0';
  if (digits == 0 || leading_zero || k >= Tokenizer::kSentinels) return {};
  if (at == text.size() || text[at] != '>') return {};
  return {k, at + 1};
}

}  // namespace

struct Tokenizer::Processor {
  sentencepiece::SentencePieceProcessor spm;
};

Tokenizer::Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  return from_bytes(read_file(path, uint64_t{64} << 20), path.string());
}

Tokenizer Tokenizer::from_bytes(std::string model, const std::string& name) {
  Tokenizer tokenizer;
  const SentencePieceModelInfo info = check_sentencepiece_model(model, name);
  tokenizer.separable_ = info.separable_at_spaces;
  tokenizer.processor_ = std::make_unique<Processor>();
  auto& spm = tokenizer.processor_->spm;
  const auto status = spm.LoadFromSerializedProto(model);
  SW_CHECK(status.ok(), corrupt, "{}: SentencePiece cannot load it: {}", name, status.message());
  tokenizer.pieces_ = spm.GetPieceSize();
  SW_CHECK(tokenizer.pieces_ == info.pieces, corrupt, "{}: {} pieces in the file, {} loaded", name,
           info.pieces, tokenizer.pieces_);
  SW_CHECK(spm.pad_id() == kPad && spm.eos_id() == kEos && spm.unk_id() == kUnk, corrupt,
           "{}: ids of pad, end of sequence and unknown are {}, {}, {}; expected T5's 0, 1, 2 "
           "(sw-tokenize --train-vocab makes such a vocabulary)",
           name, spm.pad_id(), spm.eos_id(), spm.unk_id());
  tokenizer.sha256_ = sw::sha256(model.data(), model.size());
  tokenizer.bytes_ = std::move(model);
  return tokenizer;
}

void Tokenizer::encode_plain(std::string_view text, std::vector<int32_t>& ids) const {
  std::vector<int> part;
  while (!text.empty()) {
    size_t length = text.size();
    if (separable_ && length > kLongTextBytes) {
      // Between two ASCII letters or marks around a space no rule of the normaliser applies.
      for (size_t at = kLongTextBytes; at > 1; --at) {
        const auto before = static_cast<unsigned char>(text[at - 1]);
        const auto after = static_cast<unsigned char>(text[at + 1]);
        if (text[at] == ' ' && before > ' ' && before < 0x7F && after > ' ' && after < 0x7F) {
          length = at;
          break;
        }
      }
    }
    const auto status = processor_->spm.Encode({text.data(), length}, &part);
    SW_CHECK(status.ok(), corrupt, "SentencePiece cannot encode {} bytes of text: {}", length,
             status.message());
    ids.insert(ids.end(), part.begin(), part.end());
    text.remove_prefix(length);
  }
}

void Tokenizer::encode(std::string_view text, std::vector<int32_t>& ids) const {
  size_t from = 0;
  for (size_t at = text.find(kSentinelPrefix); at != text.npos;
       at = text.find(kSentinelPrefix, at)) {
    const SentinelName name = parse_sentinel(text.substr(at));
    if (name.k < 0) {
      at += kSentinelPrefix.size();
      continue;
    }
    encode_plain(text.substr(from, at - from), ids);
    ids.push_back(sentinel(name.k));
    at += name.length;
    from = at;
  }
  encode_plain(text.substr(from), ids);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  encode(text, ids);
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  std::vector<int> run;
  const auto flush = [&] {
    if (run.empty()) return;
    std::string part;
    const auto status = processor_->spm.Decode(run, &part);
    SW_CHECK(status.ok(), corrupt, "SentencePiece cannot decode {} ids: {}", run.size(),
             status.message());
    // Decoding a run drops the space in front of its first word.
    if (!text.empty() && piece(run[0]).compare(0, kSpaceSymbol.size(), kSpaceSymbol) == 0) {
      text += ' ';
    }
    text += part;
    run.clear();
  };
  for (const int32_t id : ids) {
    if (id >= pieces_ && id < vocab_size()) {
      flush();
      if (!text.empty() && text.back() != ' ') text += ' ';
      text += piece(id);
    } else if (id != kPad && id != kEos) {
      run.push_back(id < 0 || id >= pieces_ ? kUnk : id);
    }
  }
  flush();
  return text;
}

std::string Tokenizer::piece(int32_t id) const {
  if (id >= 0 && id < pieces_) return processor_->spm.IdToPiece(id);
  if (id >= pieces_ && id < vocab_size()) {
    return std::string(kSentinelPrefix) + std::to_string(vocab_size() - 1 - id) + '>';
  }
  return '<' + std::to_string(id) + '>';
}

}  // namespace sw
