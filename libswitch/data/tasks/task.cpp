#include "libswitch/data/tasks/task.h"

#include <algorithm>
#include <filesystem>

#include "libswitch/base/error.h"
#include "libswitch/data/tasks/raw_file.h"
#include "libswitch/data/tasks/task_kind.h"

namespace sw {
namespace {

constexpr size_t kShownPlaces = 3;
constexpr const char* kUnlabelled = "<unk>";

}  // namespace

void Examples::add(std::string input, std::string target, Reference reference) {
  pairs.push_back({std::move(input), std::move(target)});
  references.push_back(std::move(reference));
}

void Examples::add_unlabelled(std::string input, const std::string& place, Reference reference) {
  add(std::move(input), kUnlabelled, std::move(reference));
  if (unlabelled.size() < kShownPlaces) unlabelled.push_back(place);
  ++unlabelled_count;
}

struct Task::State {
  const TaskKind* kind = nullptr;
  std::string name, file;
  Examples examples;
  std::vector<TextPair> true_referents;  // of WSC

  void require_labels(const char* use) const {
    if (examples.unlabelled_count == 0) return;
    std::string places;
    for (const std::string& place : examples.unlabelled) {
      places += (places.empty() ? "" : ", ") + place;
    }
    fail(
        ErrorKind::corrupt,
        "{}: {} of {} examples have no label or answer, so that {}; the first at {}; give labelled "
        "data ({})",
        file, examples.unlabelled_count, examples.pairs.size(), use, places, kind->layout());
  }
};

Task::Task(std::unique_ptr<State> state) : state_(std::move(state)) {}
Task::~Task() = default;

std::unique_ptr<Task> Task::open(const std::string& spec) {
  auto state = std::make_unique<State>();
  state->kind = &plain_kind();
  state->file = spec;
  const size_t colon = spec.find(':');
  // A file may have a colon in its name; one that exists is taken by its name.
  if (colon != spec.npos && !std::filesystem::exists(spec)) {
    const std::string name = spec.substr(0, colon);
    state->kind = find_task_kind(name);
    if (state->kind == nullptr) {
      std::string known;
      for (const std::string& task : task_names()) known += " " + task;
      fail(ErrorKind::usage, "'{}' names no task{} (tasks:{})", name,
           nearest_hint(name, task_names()), known);
    }
    state->file = spec.substr(colon + 1);
    SW_CHECK(!state->file.empty(), usage, "'{}': expected a file after ':'", spec);
  }
  state->name = state->kind == &plain_kind() ? state->file : state->kind->name;
  const TaskKind& kind = *state->kind;
  read_raw_file(state->file, kind,
                [&](const RawRecord& record) { kind.cast(kind, record, state->examples); });
  SW_CHECK(!state->examples.pairs.empty(), corrupt, "{}: holds no examples", state->file);
  auto& ids = state->examples.ids;
  if (std::find(ids.begin(), ids.end(), "") != ids.end()) ids.clear();
  const Examples& examples = state->examples;
  for (size_t i = 0; kind.cast == cast_wsc && i < examples.pairs.size(); ++i) {
    if (examples.references[i].label == 1) state->true_referents.push_back(examples.pairs[i]);
  }
  return std::unique_ptr<Task>(new Task(std::move(state)));
}

const std::string& Task::name() const { return state_->name; }
const std::string& Task::file() const { return state_->file; }
const std::vector<TextPair>& Task::pairs() const { return state_->examples.pairs; }
const std::vector<std::string>& Task::ids() const { return state_->examples.ids; }
std::pair<int64_t, int64_t> Task::lengths() const { return state_->kind->lengths; }

bool Task::labelled() const { return state_->examples.unlabelled_count == 0; }
std::string Task::unlabelled_note() const {
  const int64_t none = state_->examples.unlabelled_count, all = std::ssize(pairs());
  if (none == 0) return "";
  return fmt::format("{}: {} label or answer ({})", file(),
                     none == all ? fmt::format("none of {} examples has a", all)
                                 : fmt::format("{} of {} examples have no", none, all),
                     state_->kind->layout());
}
void Task::check_judgeable() const { state_->require_labels("answers cannot be judged"); }

const std::vector<TextPair>& Task::training_pairs() const {
  state_->require_labels("they cannot be trained on");
  if (state_->kind->cast != cast_wsc) return pairs();
  SW_CHECK(!state_->true_referents.empty(), corrupt,
           "{}: none of {} referents is the right one: nothing to train on", state_->file,
           pairs().size());
  return state_->true_referents;
}

std::vector<std::pair<std::string, double>> Task::metrics(std::span<const std::string> answers,
                                                          AnswerSource source) const {
  SW_CHECK(answers.size() == pairs().size(), usage,
           "{} answer(s) for {} example(s) of {}; expected one each, in order", answers.size(),
           pairs().size(), state_->file);
  check_judgeable();
  return state_->kind->judge(*state_->kind, state_->examples, answers, source);
}

std::vector<std::string> task_names() {
  std::vector<std::string> names;
  for (const TaskKind& kind : task_kinds()) names.emplace_back(kind.name);
  return names;
}

}  // namespace sw
