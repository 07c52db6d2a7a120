// A SentencePiece model that the walk over its bytes lets pass must not harm the library.
#include "libswitch/data/sentencepiece_model.h"
#include "libswitch/data/tokenizer.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sw;
  using namespace sw::fuzz;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  if (!accepts(size, [&] { check_sentencepiece_model(bytes, "a.model"); })) return 0;
  accepts(size, [&] {
    const Tokenizer tokenizer = Tokenizer::from_bytes(bytes, "a.model");
    for (const char* text :
         {"", "ba ke  li mo",
          "\xEF\xBC\xA1\xC2\xA0\xE2\x91\xA0\xCC\x88 <extra_id_0> \xF0\x9F\x98\x80 .",
          "\xE2\x96\x81\t\x01 unk"}) {
      tokenizer.decode(tokenizer.encode(text));
    }
  });
  return 0;
}
