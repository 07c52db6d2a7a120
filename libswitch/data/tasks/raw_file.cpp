#include "libswitch/data/tasks/raw_file.h"

#include <algorithm>
#include <string_view>

#include "libswitch/base/error.h"
#include "libswitch/base/log.h"
#include "libswitch/data/line_reader.h"
#include "libswitch/data/tasks/json_text.h"
#include "libswitch/data/tasks/metrics/python_text.h"

namespace sw {
namespace {

using nlohmann::json;

constexpr int64_t kMaxLineBytes = int64_t{1} << 30;  // a JSON document may be one line

// Takes an example and where it stands.
using Take = std::function<void(const json&, std::string)>;

// A JSON value that stands at `place`: an example, or a list of them.
void take_value(const json& value, const std::string& place, const Take& take) {
  const auto take_list = [&](const json& list, const char* name) {
    for (size_t i = 0; i < list.size(); ++i) {
      take(list[i], fmt::format("{}: {}[{}]", place, name, i));
    }
  };
  if (value.is_array()) return take_list(value, "");
  if (value.is_object()) {
    for (const char* name : {"data", "Data"}) {
      const auto it = value.find(name);
      if (it != value.end() && it->is_array()) return take_list(*it, name);
    }
  }
  take(value, place);
}

// Reads on to the end: a document that is laid out over several lines.
void take_document(LineReader& reader, std::string text, const std::filesystem::path& path,
                   const Take& take) {
  const int64_t first_line = reader.line();
  std::string line;
  while (reader.next(line)) {
    text += '\n';
    text += line;
    SW_CHECK(static_cast<int64_t>(text.size()) <= kMaxLineBytes, corrupt,
             "{}: JSON document is longer than {} bytes; give JSON lines", path.string(),
             kMaxLineBytes);
  }
  JsonFault fault;
  const json value = parse_json(text, fault);
  if (value.is_discarded()) {
    fail(ErrorKind::corrupt, "{}: malformed JSON: {}",
         line_place(path, first_line + lines_before(text, fault)), fault.what);
  }
  take_value(value, path == "-" ? "standard input" : path.string(), take);
}

void take_json(LineReader& reader, std::string line, const std::filesystem::path& path,
               const Take& take) {
  bool first = true;
  do {
    if (is_blank(line)) continue;
    JsonFault fault;
    const json value = parse_json(line, fault);
    if (value.is_discarded()) {
      // An object that goes on after the first line is a document; later lines have had their say.
      if (first && fault.byte > line.size()) {
        return take_document(reader, std::move(line), path, take);
      }
      fail(ErrorKind::corrupt, "{}: malformed JSON at byte {}: {}", reader.place(), fault.byte,
           fault.what);
    }
    first = false;
    take_value(value, reader.place(), take);
  } while (reader.next(line));
}

// Where each column of the kind's table stands in a file.
struct TableLayout {
  std::vector<std::pair<const char*, size_t>> fields;
  size_t columns = 0;
  bool has_header = false;
  bool labelled = true;
};

size_t find_column(const std::vector<std::string>& header, const char* name) {
  return static_cast<size_t>(std::find(header.begin(), header.end(), name) - header.begin());
}

TableLayout table_layout(const TaskKind& kind, const std::vector<std::string>& first,
                         const std::string& place) {
  TableLayout layout;
  layout.columns = first.size();
  const auto is_label = [](const TableColumn& column) {
    return std::string_view(column.field) == "label";
  };
  std::string absent;
  bool any = false;
  for (const TableColumn& column : kind.table) {
    size_t at = find_column(first, column.header);
    if (at == first.size()) at = find_column(first, column.field);
    if (at < first.size()) {
      layout.fields.emplace_back(column.field, at);
      any |= !is_label(column);
    } else if (is_label(column)) {
      for (const std::string& name : first) {
        const bool slip = is_slip_of(column.header, name) || is_slip_of(column.field, name);
        SW_CHECK(
            !slip, corrupt,
            "{}: no column \"{}\", but \"{}\"; rename it if it is the label, else leave it out",
            place, column.header, name.substr(0, 64));
      }
      layout.labelled = false;  // test data
    } else {
      absent += fmt::format("{}\"{}\"", absent.empty() ? "" : ", ", column.header);
    }
  }
  layout.has_header = any;
  if (any && absent.empty()) return layout;
  const bool may_lack_header = kind.table_columns > 0;
  if (!any && may_lack_header) {
    SW_CHECK(static_cast<int64_t>(first.size()) == kind.table_columns, corrupt,
             "{}: {} column(s), expected {} separated by tabs{}", place, first.size(),
             kind.table_columns, *kind.name == '\0' ? " (input and target), or JSON lines" : "");
    layout = {{}, first.size(), false, true};
    for (const TableColumn& column : kind.table) {
      layout.fields.emplace_back(column.field, static_cast<size_t>(column.without_header));
    }
    return layout;
  }
  fail(ErrorKind::corrupt,
       "{}: no column {} in the first line, and no JSON either; {} is read from JSON lines or from "
       "its official table",
       place, absent, kind.name);
}

void take_table(LineReader& reader, std::string line, const TaskKind& kind, const Take& take) {
  const auto cells_of = [&](const std::string& text) {
    require_utf8(text, reader.place());
    return split_at(text, '\t');
  };
  const TableLayout layout = table_layout(kind, cells_of(line), reader.place());
  // The official files of QQP have a few rows that are cut short, which its users pass over.
  const bool may_skip = std::string_view(kind.name) == "qqp";
  int64_t rows = 0, skipped = 0;
  std::string first_skipped;
  bool more = true;
  if (layout.has_header) more = reader.next(line);
  for (; more; more = reader.next(line)) {
    if (is_blank(line)) continue;
    ++rows;
    std::vector<std::string> cells = cells_of(line);
    if (cells.size() != layout.columns) {
      const std::string what = fmt::format("{}: {} column(s), expected {} separated by tabs",
                                           reader.place(), cells.size(), layout.columns);
      SW_CHECK(may_skip && cells.size() < layout.columns, corrupt, "{}", what);
      if (skipped++ == 0) first_skipped = what;
      continue;
    }
    json record = json::object();
    for (const auto& [field, at] : layout.fields) record[field] = std::move(cells[at]);
    if (!layout.labelled) record["label"] = -1;
    take(record, reader.place());
  }
  if (skipped == 0) return;
  SW_CHECK(skipped * 1000 < rows, corrupt, "{}", first_skipped);
  log::warn("{}; {} such row(s) of {} passed over", first_skipped, skipped, rows);
}

// DPR as its authors give it: sentence, pronoun, candidates, answer, a line each, then a blank one.
void take_blocks(LineReader& reader, std::string line, const Take& take) {
  bool more = true;
  while (more) {
    if (is_blank(line)) {
      more = reader.next(line);
      continue;
    }
    const std::string place = reader.place();
    std::vector<std::string> block;
    for (; more && !is_blank(line); more = reader.next(line)) {
      require_utf8(line, reader.place());
      block.push_back(python_strip(line));
    }
    SW_CHECK(block.size() == 4, corrupt,
             "{}: a block of {} line(s), expected four: sentence, pronoun, \"candidate,candidate\" "
             "and answer",
             place, block.size());
    json record = {{"sentence", block[0]}, {"pronoun", block[1]}, {"candidates", json::array()}};
    for (const std::string& candidate : split_at(block[2], ',')) {
      record["candidates"].push_back(python_strip(candidate));
    }
    record["label"] = block[3];
    take(record, place);
  }
}

}  // namespace

void read_raw_file(const std::filesystem::path& path, const TaskKind& kind,
                   const std::function<void(const RawRecord&)>& take_record) {
  RawLayout layout{kind.layout(), "", ""};
  const Take take = [&](const json& value, std::string place) {
    take_record(RawRecord(value, std::move(place), layout));
  };
  LineReader reader(path, kMaxLineBytes);
  std::string line;
  do {
    if (!reader.next(line)) return;
  } while (is_blank(line));
  const char first = line[line.find_first_not_of(" \t\r\n\v\f")];
  // Text of a table may begin like JSON, but JSON has no tabs in its strings.
  const bool is_row = !kind.table.empty() && line.find('\t') != line.npos && !json::accept(line);
  if ((first == '{' || first == '[') && !is_row) {
    take_json(reader, std::move(line), path, take);
  } else if (kind.cast == cast_dpr) {
    take_blocks(reader, std::move(line), take);
  } else if (!kind.table.empty()) {
    take_table(reader, std::move(line), kind, take);
  } else {
    require_utf8(line, reader.place());
    fail(ErrorKind::corrupt, "{}: expected JSON, got '{}'; {} is read from JSON lines",
         reader.place(), line.substr(0, 40), kind.name);
  }
}

}  // namespace sw
