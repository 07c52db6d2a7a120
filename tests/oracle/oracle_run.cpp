// oracle_run [--check] [--dtype fp32|fp64|bf16] [--device cpu] [--recompute none|layer|full]
// CASE...
//
// Runs cases of outside reference code (oracle.h): prints one JSON object a case, or compares with
// expected.json.
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "libswitch/base/error.h"
#include "tests/oracle/oracle.h"

namespace {

constexpr const char* kUsage =
    "usage: oracle_run [--check] [--dtype fp32|fp64|bf16] [--device cpu] [--recompute "
    "none|layer|full] CASE...\n"
    "  CASE   a folder with config.json and inputs.json (Hugging Face), or case.json and "
    "batches.json (Mesh)\n"
    "  prints one JSON object a case; with --check compares with CASE/expected.json and exits 1 on "
    "a difference\n";

struct Arguments {
  bool check = false;
  sw::oracle::RunOptions run;
  std::vector<std::string> cases;
};

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&] {
      if (++i >= argc) sw::fail(sw::ErrorKind::usage, "{}: a value is missing", word);
      return std::string(argv[i]);
    };
    if (word == "--check") {
      arguments.check = true;
    } else if (word == "--dtype") {
      const std::string name = value();
      if (name == "fp32")
        arguments.run.dtype = sw::DType::f32;
      else if (name == "fp64")
        arguments.run.dtype = sw::DType::f64;
      else if (name == "bf16")
        arguments.run.dtype = sw::DType::bf16;
      else
        sw::fail(sw::ErrorKind::usage, "--dtype: '{}', expected fp32, fp64 or bf16", name);
    } else if (word == "--device") {
      const std::string name = value();
      if (name != "cpu") {
        sw::fail(sw::ErrorKind::device, "--device: '{}', this build runs cases on cpu", name);
      }
    } else if (word == "--recompute") {
      arguments.run.recompute = sw::recompute_from(value());
    } else if (word == "--help" || word == "-h") {
      std::fputs(kUsage, stdout);
      std::exit(0);
    } else if (word.size() > 1 && word[0] == '-') {
      sw::fail(sw::ErrorKind::usage, "unknown option '{}'\n{}", word, kUsage);
    } else {
      arguments.cases.push_back(word);
    }
  }
  if (arguments.cases.empty()) sw::fail(sw::ErrorKind::usage, "no case given\n{}", kUsage);
  return arguments;
}

// The exit status of one case. What stops it is told, and the cases after it are run all the same.
int run_one(const std::string& folder, const Arguments& arguments) {
  try {
    const sw::oracle::Json result = sw::oracle::run_case(folder, arguments.run);
    if (!arguments.check) {
      sw::oracle::Json line = {{"case", folder}};
      line.update(result);
      std::puts(line.dump().c_str());
      return 0;
    }
    const sw::oracle::Comparison comparison = sw::oracle::compare_with_expected(result, folder);
    std::puts(fmt::format("{} {} {}", comparison.passed ? "PASS" : "FAIL", folder,
                          comparison.report.dump())
                  .c_str());
    return comparison.passed ? 0 : 1;
  } catch (const sw::Error& error) {
    std::fputs(fmt::format("oracle_run: error: {}: {}\n", folder, error.what()).c_str(), stderr);
    return sw::exit_code(error.kind());
  } catch (const std::exception& error) {
    std::fputs(fmt::format("oracle_run: error: {}: {}\n", folder, error.what()).c_str(), stderr);
    return 70;
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Arguments arguments = parse(argc, argv);
    int status = 0;
    for (const std::string& folder : arguments.cases) {
      const int of_case = run_one(folder, arguments);
      if (status == 0) status = of_case;
    }
    return status;
  } catch (const sw::Error& error) {
    std::fputs(fmt::format("oracle_run: error: {}\n", error.what()).c_str(), stderr);
    return sw::exit_code(error.kind());
  } catch (const std::exception& error) {
    std::fputs(fmt::format("oracle_run: error: {}\n", error.what()).c_str(), stderr);
    return 70;
  }
}
