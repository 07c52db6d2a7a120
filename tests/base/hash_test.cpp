#include "libswitch/base/hash.h"

#include <gtest/gtest.h>

#include <string>

namespace sw {
namespace {

// FIPS 180-4 examples.
TEST(Hash, Sha256MatchesTheStandardsExamples) {
  const auto hex = [](const std::string& text) {
    const auto digest = sha256(text.data(), text.size());
    return to_hex(digest.data(), digest.size());
  };
  EXPECT_EQ(hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Hash, StreamingEqualsOneShot) {
  std::string text(100000, 'x');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 31);
  Hash128Stream stream;
  stream.update(text.data(), 1000);
  stream.update(text.data() + 1000, text.size() - 1000);
  EXPECT_EQ(stream.digest(), xxh3_128(text.data(), text.size()));
}

}  // namespace
}  // namespace sw
