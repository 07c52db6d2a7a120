// Options of every kind that a tool can have.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "libswitch/base/options.h"

namespace sw::fuzz {

struct Configuration {
  enum class Color { red, green };

  bool flag = false;
  int32_t small = 1;
  int64_t whole = 2;
  uint64_t seed = 3;
  float single = 0.5f;
  double real = 0.25;
  std::string text = "text";
  std::filesystem::path path = "a/b";
  Seconds seconds{10};
  std::optional<double> maybe;
  std::vector<std::string> texts;
  std::vector<int64_t> numbers{1, 2};
  Color color = Color::red;
  OptionRegistry registry;

  Configuration() {
    registry.group("model", "Model");
    registry.add("flag", &flag).help("a flag");
    registry.add("small", &small).range(-5, 5).help("a small number");
    registry.add("whole", &whole).at_least(0).unit("tokens").help("a whole number");
    registry.add("seed", &seed).help("any number");
    registry.add("single", &single).help("a real number");
    registry.group("train", "Training");
    registry.add("real", &real).above(0).help("a positive number");
    registry.add("text", &text).help("a text");
    registry.add("path", &path).help("a path");
    registry.add("seconds", &seconds).at_least(0).help("a duration");
    registry.add("maybe", &maybe).below(1).help("a number or nothing");
    registry.add("texts", &texts).help("texts");
    registry.add("numbers", &numbers).at_least(1).help("numbers");
    registry.add_choice("color", &color, {{"red", Color::red}, {"green", Color::green}})
        .help("a choice");
  }
};

}  // namespace sw::fuzz
