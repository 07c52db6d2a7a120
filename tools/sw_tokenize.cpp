// sw-tokenize: text to token shards and back; vocabularies; care of shards.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/hash.h"
#include "libswitch/base/log.h"
#include "libswitch/base/parallel.h"
#include "libswitch/base/terminal.h"
#include "libswitch/base/timer.h"
#include "libswitch/data/encode_corpus.h"
#include "libswitch/data/shard_reader.h"
#include "libswitch/data/shard_repair.h"
#include "libswitch/data/shard_vocabulary.h"
#include "libswitch/data/train_vocabulary.h"
#include "tools/tool.h"

namespace sw {
namespace {

using Paths = std::vector<std::filesystem::path>;

struct Options {
  std::filesystem::path vocab, output, train_vocab;
  std::string json_field;
  bool blank_line = false;
  bool decode = false, info = false, verify = false, repair = false;
  VocabularyOptions vocabulary;
};

ToolDescription description() {
  ToolDescription tool;
  tool.name = "sw-tokenize";
  tool.summary = "text to token shards and back, and the vocabularies for it";
  tool.usage = {"--train-vocab OUT.model --vocab-size N [--jsonl FIELD] [FILE...]",
                "--vocab V.model [--jsonl FIELD] [-o OUT.swt] [FILE...]",
                "--decode [--vocab V.model] [FILE.swt...]", "--info|--verify|--repair FILE.swt..."};
  tool.examples = {"zstd -dc books.txt.zst | sw-tokenize --vocab v.model > books.swt",
                   "cat a.swt b.swt | sw-tokenize --decode --vocab v.model | less"};
  tool.description =
      "Reads text (a document per line, blocks between blank lines, or a field of JSON lines; "
      "plain, .gz or .zst; files or standard input) and writes token shards, on all cores; the "
      "result does not depend on their number. Under mpirun the ranks share the files, and -o gets "
      "what cat(1) of their shards would be. A vocabulary is a SentencePiece model whose ids of "
      "pad, end of sequence and unknown are 0, 1 and 2, as T5's own; 100 sentinels follow its "
      "pieces.\n\n"
      "Shards may be concatenated with cat(1), and zstd -dc gives their tokens as flat "
      "little-endian numbers.";
  tool.positional_name = "FILE";
  tool.max_positionals = -1;
  tool.prints_results = true;
  tool.memory_hint = "with --train-vocab, lower --sample";
  tool.see_also = {"sw-pretrain(1)", "swt(5)"};
  return tool;
}

void declare(OptionRegistry& registry, Options& options) {
  registry.group("text", "Text and tokens");
  registry.add("vocab", &options.vocab).value_name("V.model").help("the SentencePiece model");
  registry.add("output", &options.output)
      .short_name('o')
      .value_name("OUT.swt")
      .default_text("stdout")
      .help("write the shard to a file, which appears when it is whole");
  registry.add("jsonl", &options.json_field)
      .value_name("FIELD")
      .help("input is JSON lines; the text is this string field");
  registry.add("blank-line", &options.blank_line)
      .help("blank lines separate documents (default: each line is one)");
  registry.group("vocabulary", "Training a vocabulary");
  registry.add("train-vocab", &options.train_vocab)
      .value_name("OUT.model")
      .scope(Scope::command_line)
      .help("train a vocabulary on the text and write it here");
  registry.add("vocab-size", &options.vocabulary.pieces)
      .range(16, 1000000)
      .unit("pieces")
      .help("pieces, those of pad, end and unknown included");
  registry.add_choice("model-type", &options.vocabulary.model_type, {"unigram", "bpe"})
      .help("kind of model");
  registry.add("sample", &options.vocabulary.sample_bytes)
      .at_least(1 << 16)
      .unit("bytes")
      .help("train on a random sample of lines of this size when there is more text")
      .details("Training takes about 26 times as much memory, and a minute or two for 32M.");
  registry.add("character-coverage", &options.vocabulary.character_coverage)
      .range(0.98L, 1)  // SentencePiece takes no less
      .advanced()
      .help("share of all characters that get a piece");
  registry.add("byte-fallback", &options.vocabulary.byte_fallback)
      .advanced()
      .help("spell unknown characters as bytes (T5 does not)");
  registry.add("seed", &options.vocabulary.seed).advanced().help("which sample is drawn");
  registry.group("shards", "Shards");
  registry.add("decode", &options.decode)
      .scope(Scope::command_line)
      .help("tokens to text, a document per line");
  registry.add("info", &options.info).scope(Scope::command_line).help("print what shards hold");
  registry.add("verify", &options.verify)
      .scope(Scope::command_line)
      .help("read and check every byte of shards");
  registry.add("repair", &options.repair)
      .scope(Scope::command_line)
      .help("keep what is whole of damaged shards, the old file as FILE.damaged");
}

std::string shown(const std::filesystem::path& path) {
  return path == "-" ? "standard input" : path.string();
}

TextOptions text_options(const Options& options) {
  TextOptions text;
  SW_CHECK(options.json_field.empty() || !options.blank_line, usage,
           "--jsonl and --blank-line exclude each other");
  if (options.blank_line) text.format = TextFormat::blank_lines;
  if (!options.json_field.empty()) {
    text.format = TextFormat::json_lines;
    text.json_field = options.json_field;
  }
  return text;
}

TextSource open_text(const Options& options, const ToolRun& run) {
  const Paths files(run.arguments.begin(), run.arguments.end());
  if (files.empty() && ::isatty(STDIN_FILENO) == 1) {
    log::info("reading text from the terminal; Ctrl-D ends it");
  }
  return TextSource(files, text_options(options));
}

// Sources and options of a shard; a list too long for the header is closed by its hash.
std::string describe_work(const Options& options, const TextSource& source) {
  nlohmann::ordered_json json = {{"tool", "sw-tokenize"}};
  auto sources = nlohmann::ordered_json::array();
  std::string rest;
  size_t bytes = 0, more = 0;
  for (const auto& file : source.files()) {
    bytes += file.string().size() + 8;
    if (bytes < 32000) {
      sources.push_back(file.string());
    } else {
      rest += file.string() + '\n', ++more;
    }
  }
  json["sources"] = sources;
  if (more > 0) {
    json["more_sources"] = {{"count", more}, {"xxh3", xxh3_128(rest.data(), rest.size()).hex()}};
  }
  if (!options.json_field.empty()) json["jsonl"] = options.json_field;
  if (options.blank_line) json["blank_line"] = true;
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

// "12.3 MB, 4.5k documents, ..." on stderr: one line rewritten, or a log line now and then.
class EncodeProgress {
 public:
  explicit EncodeProgress(ProgressMode mode) : mode_(mode) {}
  ~EncodeProgress() { clear(); }
  void operator()(const EncodeTotals& totals) {
    const double wait = mode_ == ProgressMode::bar ? 0.2 : 10;
    if (mode_ == ProgressMode::none || since_.seconds() < wait) return;
    since_.restart();
    const std::string line = text(totals);
    if (mode_ == ProgressMode::bar) {
      const std::string_view fits = fit_columns(line, terminal_columns(STDERR_FILENO));
      std::fputs(fmt::format("\r\x1b[K{}", fits).c_str(), stderr);
      std::fflush(stderr);
      drawn_ = true;
    } else {
      log::info("{}", line);
    }
  }
  void clear() {
    if (drawn_) std::fputs("\r\x1b[K", stderr);
    drawn_ = false;
  }
  std::string text(const EncodeTotals& totals) const {
    const double seconds = timer_.seconds();
    return fmt::format("{:.1f} MB, {} documents, {:.2f} M tokens, {:.1f} MB/s, {:.2f} M tokens/s",
                       static_cast<double>(totals.bytes) * 1e-6, totals.documents,
                       static_cast<double>(totals.tokens) * 1e-6,
                       static_cast<double>(totals.bytes) * 1e-6 / seconds,
                       static_cast<double>(totals.tokens) * 1e-6 / seconds);
  }

 private:
  ProgressMode mode_;
  Timer timer_, since_;
  bool drawn_ = false;
};

// An output of that name would take the place of what is being read.
void check_not_read(const std::filesystem::path& output, const Paths& inputs) {
  for (const auto& input : inputs) {
    std::error_code error;
    const bool same = input != "-" && std::filesystem::is_regular_file(input, error) &&
                      std::filesystem::equivalent(input, output, error);
    SW_CHECK(!same, usage, "{}: is read and would be written; give the output another name",
             output.string());
  }
}

// Calls `write` with standard output or with a file that appears when all went well. What cannot
// be written is refused before the work of `write`.
void with_output(const std::filesystem::path& path, const std::string& what, const Paths& inputs,
                 const std::function<void(int fd, const std::string& name)>& write) {
  if (path.empty() || path == "-") {
    require_not_terminal(STDOUT_FILENO, what, "redirect it or name a file");
    write(STDOUT_FILENO, "stdout");
    return;
  }
  check_not_read(path, inputs);
  AtomicFile file(path);
  write(file.fd(), file.temporary_path().string());
  file.commit();
}

void encode_to(int fd, const std::string& name, const Tokenizer& tokenizer, TextSource& source,
               const Options& options, const ToolRun& run) {
  ShardWriter writer([&](const void* data, size_t n) { write_all(fd, data, n, name); },
                     shard_header(tokenizer, describe_work(options, source),
                                  std::filesystem::absolute(options.vocab).string()),
                     num_threads());
  EncodeProgress progress(run.progress());
  const EncodeTotals totals =
      encode_corpus(source, tokenizer, writer, num_threads(), std::ref(progress));
  writer.finish();
  progress.clear();
  log::info("{}", progress.text(totals));
  if (totals.tokens == 0) log::warn("the text holds no tokens");
}

// Files [begin, end) of rank `rank`: neighbours, with about as many bytes for each rank.
std::pair<size_t, size_t> files_of_rank(const Paths& files, int64_t rank, int64_t ranks) {
  std::vector<double> before = {0};
  for (const auto& file : files) {
    before.push_back(before.back() + static_cast<double>(std::filesystem::file_size(file)));
  }
  const auto first_at = [&](int64_t r) {
    const double share = before.back() * static_cast<double>(r) / static_cast<double>(ranks);
    // A file belongs to the rank in whose share its middle lies.
    size_t i = 0;
    while (i < files.size() && (before[i] + before[i + 1]) / 2 < share) ++i;
    return r == ranks ? files.size() : i;
  };
  return {first_at(rank), first_at(rank + 1)};
}

// Every rank encodes its share of the files to a part of its own; rank 0 puts the parts together in
// the order of the files, which is what cat(1) of shards makes.
int encode_by_ranks(World& world, const Tokenizer& tokenizer, const TextSource& all,
                    const Options& options, const ToolRun& run) {
  SW_CHECK(!options.output.empty() && options.output != "-", usage,
           "{} ranks cannot share stdout; give -o OUT.swt in a folder that all of them see",
           world.size());
  for (const auto& file : all.files()) {
    SW_CHECK(std::filesystem::is_regular_file(file), usage,
             "{}: {} ranks split their input by files; give regular files", shown(file),
             world.size());
  }
  const auto part_of = [&](int64_t rank) {
    return std::filesystem::path(fmt::format("{}.rank-{}", options.output.string(), rank));
  };
  const auto [begin, end] = files_of_rank(all.files(), world.rank(), world.size());
  std::string fault;
  ErrorKind kind = ErrorKind::internal;
  try {
    if (begin < end) {
      TextSource own(Paths(all.files().begin() + static_cast<std::ptrdiff_t>(begin),
                           all.files().begin() + static_cast<std::ptrdiff_t>(end)),
                     text_options(options));
      AtomicFile part(part_of(world.rank()));
      encode_to(part.fd(), part.temporary_path().string(), tokenizer, own, options, run);
      part.commit();
    }
  } catch (const Error& error) {
    fault = error.what(), kind = error.kind();
  }
  const std::vector<std::string> faults = world.group().all_gather_bytes(fault);
  const bool failed = std::any_of(faults.begin(), faults.end(),
                                  [](const std::string& text) { return !text.empty(); });
  if (failed) {
    std::error_code ignored;
    std::filesystem::remove(part_of(world.rank()), ignored);
    world.group().barrier();
    // The ranks without a fault wait for the end that the others bring.
    if (fault.empty()) world.group().barrier();
    fail(kind, "{}", fault);
  }
  if (world.rank() != 0) {
    world.group().barrier();
    return 0;
  }
  AtomicFile out(options.output);
  std::string buffer(size_t{1} << 20, '\0');
  for (int64_t rank = 0; rank < world.size(); ++rank) {
    const auto [first, last] = files_of_rank(all.files(), rank, world.size());
    if (first == last) continue;
    const FileDescriptor part = open_for_read(part_of(rank));
    const auto bytes = static_cast<int64_t>(std::filesystem::file_size(part_of(rank)));
    for (int64_t at = 0; at < bytes;) {
      const int64_t n = std::min<int64_t>(bytes - at, static_cast<int64_t>(buffer.size()));
      pread_all(part.get(), buffer.data(), static_cast<size_t>(n), static_cast<uint64_t>(at),
                part_of(rank).string());
      write_all(out.fd(), buffer.data(), static_cast<size_t>(n), out.temporary_path().string());
      at += n;
    }
    std::filesystem::remove(part_of(rank));
  }
  out.commit();
  world.group().barrier();
  return 0;
}

int encode(const Options& options, const ToolRun& run) {
  SW_CHECK(!options.vocab.empty(), usage,
           "no vocabulary; give --vocab V.model, or make one with --train-vocab");
  const Tokenizer tokenizer = Tokenizer::load(options.vocab);
  TextSource source = open_text(options, run);
  if (run.common.dry_run) {
    uint64_t bytes = 0;
    for (const auto& file : source.files()) {
      if (std::filesystem::is_regular_file(file)) bytes += std::filesystem::file_size(file);
    }
    log::info("vocabulary of {} pieces; {} inputs of {} bytes as stored; all can be opened",
              tokenizer.pieces(), source.files().size(), bytes);
    return 0;
  }
  World& world = join_world(run);
  if (world.size() > 1) return encode_by_ranks(world, tokenizer, source, options, run);
  Paths inputs = source.files();
  inputs.push_back(options.vocab);
  with_output(options.output, "a token shard", inputs, [&](int fd, const std::string& name) {
    encode_to(fd, name, tokenizer, source, options, run);
  });
  return 0;
}

int train(const Options& options, const ToolRun& run) {
  TextSource source = open_text(options, run);
  if (run.common.dry_run) {
    log::info("{} inputs can be opened", source.files().size());
    return 0;
  }
  const Timer timer;
  const auto& o = options.vocabulary;
  log::info("training a {} vocabulary of {} pieces", o.model_type, o.pieces);
  const std::string file = options.train_vocab.string();
  with_output(options.train_vocab, "a vocabulary", source.files(), [&](int fd, const auto& name) {
    const TrainedVocabulary trained = train_vocabulary(source, o);
    const Tokenizer check = Tokenizer::from_bytes(trained.model, file);
    write_all(fd, trained.model.data(), trained.model.size(), name);
    log::info("{}: {} pieces from {} lines, {} of {} bytes, in {:.1f} s", file, check.pieces(),
              trained.sampled_lines, trained.sampled_bytes, trained.corpus_bytes, timer.seconds());
  });
  return 0;
}

// Files to read as shards; standard input when none is named.
Paths shard_files(const ToolRun& run) {
  if (run.arguments.empty()) return {"-"};
  return Paths(run.arguments.begin(), run.arguments.end());
}

// Opens a shard for reading from its start to its end.
struct OpenShard {
  explicit OpenShard(const std::filesystem::path& path)
      : file(path == "-" ? FileDescriptor() : open_for_read(path)),
        stream(path == "-" ? STDIN_FILENO : file.get(), shown(path)) {}
  FileDescriptor file;
  ShardStream stream;
};

int decode(const Options& options, const ToolRun& run) {
  for (const auto& path : shard_files(run)) {
    OpenShard shard(path);
    const Tokenizer tokenizer =
        load_shard_vocabulary(shard.stream.header(), shown(path), options.vocab);
    if (run.common.dry_run) continue;
    DocumentReader reader(shard.stream);
    constexpr size_t kBatchTokens = size_t{1} << 20;
    bool more = true;
    while (more) {
      std::vector<std::vector<int32_t>> documents;
      size_t tokens = 0;
      std::vector<int32_t> document;
      while (tokens < kBatchTokens && (more = reader.next(document))) {
        tokens += document.size();
        documents.push_back(std::move(document));
      }
      std::vector<std::string> texts(documents.size());
      parallel_for(static_cast<int64_t>(documents.size()), 1, [&](int64_t begin, int64_t end) {
        for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
          texts[i] = tokenizer.decode(documents[i]);
          std::replace(texts[i].begin(), texts[i].end(), '\n', ' ');
          texts[i] += '\n';
        }
      });
      std::string out;
      for (const std::string& text : texts) out += text;
      write_all(STDOUT_FILENO, out.data(), out.size(), "stdout");
    }
  }
  return 0;
}

void print_line(const std::string& line) {
  write_all(STDOUT_FILENO, (line + "\n").data(), line.size() + 1, "stdout");
}

int info(const ToolRun& run) {
  for (const auto& path : shard_files(run)) {
    ShardTotals totals;
    ShardHeader header;
    if (path == "-") {
      OpenShard shard(path);
      header = shard.stream.header();
      TokenBlock block;
      while (shard.stream.next(block)) {
      }
      totals = {shard.stream.tokens(), shard.stream.documents(), shard.stream.bytes(),
                shard.stream.blocks(), shard.stream.segments()};
    } else {
      const ShardFile file(path);
      header = file.header();
      totals = {file.tokens(), file.documents(), file.bytes(), file.blocks(), file.segments()};
    }
    const std::string sha = to_hex(header.vocab_sha256.data(), 32);
    if (run.common.json) {
      const nlohmann::ordered_json json = {{"file", path.string()},
                                           {"tokens", totals.tokens},
                                           {"documents", totals.documents},
                                           {"blocks", totals.blocks},
                                           {"segments", totals.segments},
                                           {"vocab_size", header.vocab_size},
                                           {"token_bytes", header.token_bytes},
                                           {"bytes", totals.bytes},
                                           {"vocab_sha256", sha}};
      print_line(json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
    } else {
      print_line(fmt::format(
          "{}: {} tokens, {} documents, {} blocks, {} segments, {} bytes ({:.3f} per token)\n"
          "  vocabulary of {} ids, {} bytes per token, SHA-256 {}\n  {}",
          shown(path), totals.tokens, totals.documents, totals.blocks, totals.segments,
          totals.bytes,
          static_cast<double>(totals.bytes) /
              static_cast<double>(std::max<uint64_t>(totals.tokens, 1)),
          header.vocab_size, header.token_bytes, sha, header.json));
    }
  }
  return 0;
}

int verify(const ToolRun& run) {
  int code = 0;
  for (const auto& path : shard_files(run)) {
    try {
      const ShardTotals totals = verify_shard(path);
      print_line(fmt::format("{}: ok, {} tokens, {} documents, {} blocks, {} segments", shown(path),
                             totals.tokens, totals.documents, totals.blocks, totals.segments));
    } catch (const Error& error) {
      // The other files are checked all the same.
      log::error("{}", error.what());
      code = exit_code(error.kind());
    }
  }
  return code;
}

int repair(const ToolRun& run) {
  SW_CHECK(!run.arguments.empty(), usage, "--repair needs the files to repair");
  for (const auto& path : shard_files(run)) {
    SW_CHECK(path != "-", usage, "--repair works on files, not on standard input");
    if (run.common.dry_run) {
      const FileDescriptor there = open_for_read(path);
      continue;
    }
    const RepairReport report = repair_shard(path);
    if (!report.changed) {
      print_line(fmt::format("{}: whole, left as it is", path.string()));
    } else {
      print_line(
          fmt::format("{}: kept {} tokens in {} blocks; dropped {} damaged blocks, {} bytes "
                      "in all; the old file is {}",
                      path.string(), report.kept_tokens, report.kept_blocks, report.dropped_blocks,
                      report.dropped_bytes, report.original.string()));
    }
  }
  return 0;
}

int tokenize(const Options& options, ToolRun& run) {
  const int modes = options.decode + options.info + options.verify + options.repair +
                    !options.train_vocab.empty();
  SW_CHECK(modes <= 1, usage,
           "--train-vocab, --decode, --info, --verify and --repair exclude each other");
  SW_CHECK(modes == 0 || options.output.empty(), usage, "-o goes with encoding only");
  SW_CHECK(!run.common.json || options.info, usage, "--json goes with --info only");
  if (!options.train_vocab.empty()) return train(options, run);
  if (options.decode) return decode(options, run);
  if (options.info) return info(run);
  if (options.verify) return verify(run);
  if (options.repair) return repair(run);
  return encode(options, run);
}

}  // namespace
}  // namespace sw

int main(int argc, char** argv) {
  return sw::run_tool<sw::Options>(argc, argv, sw::description(), sw::declare, sw::tokenize);
}
