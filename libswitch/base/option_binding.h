// How an option reads and writes the field it is bound to.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace sw {

/// Time spans in options structs: --max-time 1h30m.
using Seconds = std::chrono::duration<double>;

enum class ValueKind { flag, integer, number, text, path, duration };

/// A value in the common form of its kind; a duration is its seconds.
using OptionScalar = std::variant<bool, int64_t, double, std::string>;
/// One for a plain field, none or one for an optional, any number for a list.
using OptionValues = std::vector<OptionScalar>;

struct OptionBinding {
  ValueKind kind = ValueKind::text;
  bool list = false;
  bool optional = false;
  long double low = -std::numeric_limits<long double>::infinity();  // what the field's type holds
  long double high = std::numeric_limits<long double>::infinity();
  std::function<void(const OptionValues&)> write;
  std::function<OptionValues()> read;
};

/// The common form of a field's type.
template <class T>
struct OptionType;

template <>
struct OptionType<bool> {
  static constexpr ValueKind kKind = ValueKind::flag;
  static OptionScalar wrap(bool v) { return v; }
  static bool unwrap(const OptionScalar& s) { return std::get<bool>(s); }
};

template <class T>
struct OptionIntegerType {
  static constexpr ValueKind kKind = ValueKind::integer;
  static constexpr long double kLow = std::numeric_limits<T>::min();
  static constexpr long double kHigh =
      std::min<long double>(std::numeric_limits<T>::max(), std::numeric_limits<int64_t>::max());
  static OptionScalar wrap(T v) { return static_cast<int64_t>(v); }
  static T unwrap(const OptionScalar& s) { return static_cast<T>(std::get<int64_t>(s)); }
};
template <>
struct OptionType<int32_t> : OptionIntegerType<int32_t> {};
template <>
struct OptionType<int64_t> : OptionIntegerType<int64_t> {};
template <>
struct OptionType<uint64_t> : OptionIntegerType<uint64_t> {};  // up to 2^63 - 1, as TOML

template <>
struct OptionType<double> {
  static constexpr ValueKind kKind = ValueKind::number;
  static OptionScalar wrap(double v) { return v; }
  static double unwrap(const OptionScalar& s) { return std::get<double>(s); }
};
template <>
struct OptionType<float> {
  static constexpr ValueKind kKind = ValueKind::number;
  static constexpr long double kLow = std::numeric_limits<float>::lowest();
  static constexpr long double kHigh = std::numeric_limits<float>::max();
  // By way of the shortest decimal: 0.1f is written 0.1, not 0.10000000149011612.
  static OptionScalar wrap(float v) { return std::stod(fmt::format("{}", v)); }
  static float unwrap(const OptionScalar& s) { return static_cast<float>(std::get<double>(s)); }
};

template <>
struct OptionType<std::string> {
  static constexpr ValueKind kKind = ValueKind::text;
  static OptionScalar wrap(const std::string& v) { return v; }
  static std::string unwrap(const OptionScalar& s) { return std::get<std::string>(s); }
};
template <>
struct OptionType<std::filesystem::path> {
  static constexpr ValueKind kKind = ValueKind::path;
  static OptionScalar wrap(const std::filesystem::path& v) { return v.string(); }
  static std::filesystem::path unwrap(const OptionScalar& s) { return std::get<std::string>(s); }
};
template <>
struct OptionType<Seconds> {
  static constexpr ValueKind kKind = ValueKind::duration;
  static constexpr long double kLow = 0;
  static OptionScalar wrap(Seconds v) { return v.count(); }
  static Seconds unwrap(const OptionScalar& s) { return Seconds(std::get<double>(s)); }
};

template <class T>
OptionBinding option_binding_of_type() {
  OptionBinding binding;
  binding.kind = OptionType<T>::kKind;
  if constexpr (requires { OptionType<T>::kLow; }) binding.low = OptionType<T>::kLow;
  if constexpr (requires { OptionType<T>::kHigh; }) binding.high = OptionType<T>::kHigh;
  return binding;
}

template <class T>
OptionBinding bind_option(T* field) {
  OptionBinding binding = option_binding_of_type<T>();
  binding.write = [field](const OptionValues& v) { *field = OptionType<T>::unwrap(v.at(0)); };
  binding.read = [field] { return OptionValues{OptionType<T>::wrap(*field)}; };
  return binding;
}

template <class T>
OptionBinding bind_option(std::optional<T>* field) {
  OptionBinding binding = option_binding_of_type<T>();
  binding.optional = true;
  binding.write = [field](const OptionValues& v) { *field = OptionType<T>::unwrap(v.at(0)); };
  binding.read = [field] {
    return *field ? OptionValues{OptionType<T>::wrap(**field)} : OptionValues{};
  };
  return binding;
}

template <class T>
OptionBinding bind_option(std::vector<T>* field) {
  OptionBinding binding = option_binding_of_type<T>();
  binding.list = true;
  binding.write = [field](const OptionValues& values) {
    field->clear();
    for (const OptionScalar& v : values) field->push_back(OptionType<T>::unwrap(v));
  };
  binding.read = [field] {
    OptionValues values;
    for (const T& v : *field) values.push_back(OptionType<T>::wrap(v));
    return values;
  };
  return binding;
}

template <class E>
OptionBinding bind_choice(E* field, std::vector<std::pair<std::string, E>> words) {
  OptionBinding binding;
  binding.write = [field, words](const OptionValues& v) {
    for (const auto& [word, value] : words) {
      if (word == std::get<std::string>(v.at(0))) *field = value;
    }
  };
  binding.read = [field, words] {
    for (const auto& [word, value] : words) {
      if (value == *field) return OptionValues{word};
    }
    return OptionValues{};
  };
  return binding;
}

}  // namespace sw
