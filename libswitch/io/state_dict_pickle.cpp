#include "libswitch/io/state_dict_pickle.h"

#include <cstring>
#include <limits>

#include "libswitch/base/error.h"
#include "libswitch/io/json_text.h"

namespace sw {
namespace {

enum class Kind : uint8_t {
  none,
  boolean,
  integer,
  text,
  tuple,
  list,
  dict,
  global,
  storage,
  tensor
};

// A value of the program. They live in one pool and refer to each other by index, so that a cyclic
// program frees like any other.
struct Node {
  Kind kind = Kind::none;
  uint32_t count = 0;  // bytes of a text, items of a tuple
  int64_t value = 0;   // the integer; where a text or a tuple's items begin; index of the others
};

enum Callable : int64_t { kOrderedDict, kRebuildTensor, kRebuildParameter, kFirstStorage };

struct StorageType {
  std::string_view name;
  ElementType type;
};
constexpr StorageType kStorageTypes[] = {
    {"FloatStorage", ElementType::f32}, {"BFloat16Storage", ElementType::bf16},
    {"HalfStorage", ElementType::f16},  {"DoubleStorage", ElementType::f64},
    {"LongStorage", ElementType::i64},  {"IntStorage", ElementType::i32},
    {"ShortStorage", ElementType::i16}, {"CharStorage", ElementType::i8},
    {"ByteStorage", ElementType::u8},   {"BoolStorage", ElementType::boolean},
};

constexpr size_t kMaxNodes = 500'000, kMaxItems = 100'000;
constexpr size_t kMaxStorageKey = 64;  // PyTorch's are numbers

class Machine {
 public:
  Machine(std::string_view pickle, const std::string& name) : pickle_(pickle), name_(name) {}

  void run() {
    while (!stopped_) step();
    SW_CHECK(stack_.size() == 1 && marks_.empty(), corrupt, "{}: the pickle ends untidily", name_);
  }
  size_t used() const { return at_; }

  std::vector<PickledTensor> tensors() const {
    const Node& root = nodes_[stack_[0]];
    SW_CHECK(root.kind == Kind::dict, corrupt, "{}: the pickle holds no dictionary of tensors",
             name_);
    std::vector<PickledTensor> out;
    size_t names = 0;
    for (const auto& [key, value] : items_of(root)) {
      const Node& node = nodes_[value];
      SW_CHECK(node.kind == Kind::tensor, corrupt,
               "{}: the entry {} is no tensor: not a dictionary of weights", name_,
               shown(text_of(key)));
      take_name(text_of(key), names);
      out.push_back(tensors_[static_cast<size_t>(node.value)]);
      out.back().name = text_of(key);
    }
    return out;
  }

  std::vector<std::string> texts() const {
    require(nodes_[stack_[0]].kind == Kind::list, "a list is expected");
    std::vector<std::string> out;
    size_t names = 0;
    for (const auto& [item, same] : items_of(nodes_[stack_[0]])) {
      take_name(text_of(item), names);
      out.emplace_back(text_of(item));
    }
    return out;
  }

  bool flag(std::string_view wanted) const {
    require(nodes_[stack_[0]].kind == Kind::dict, "a dictionary is expected");
    for (const auto& [key, value] : items_of(nodes_[stack_[0]])) {
      if (nodes_[key].kind != Kind::text || text_of(key) != wanted) continue;
      require(nodes_[value].kind == Kind::boolean, "true or false is expected");
      return nodes_[value].value != 0;
    }
    damaged("a key is missing");
  }

 private:
  using Items = std::vector<std::pair<uint32_t, uint32_t>>;

  [[noreturn]] void damaged(const char* what) const {
    fail(ErrorKind::corrupt, "{}: pickle: {} at byte {}", name_, what, at_);
  }
  void require(bool holds, const char* what) const {
    if (!holds) damaged(what);
  }

  // A text that the program repeats by its memo costs two bytes there, and here its length each
  // time. Names of tensors differ, so that together they are no longer than the program.
  void take_name(std::string_view name, size_t& all) const {
    all += name.size();
    require(all <= pickle_.size(), "names that repeat");
  }

  // --- Bytes of the program ---
  std::string_view take(size_t bytes) {
    require(bytes <= pickle_.size() - at_, "the end comes too early");
    at_ += bytes;
    return pickle_.substr(at_ - bytes, bytes);
  }
  uint64_t take_number(size_t bytes) {
    uint64_t value = 0;
    std::memcpy(&value, take(bytes).data(), bytes);
    return value;
  }
  std::string_view take_line() {
    const size_t end = pickle_.find('\n', at_);
    require(end != std::string_view::npos && end - at_ <= 200, "an unending line");
    const std::string_view line = take(end - at_);
    take(1);
    return line;
  }

  // --- The stack ---
  void push(Kind kind, int64_t value = 0, uint32_t count = 0) {
    require(nodes_.size() < kMaxNodes, "too many values");
    nodes_.push_back({kind, count, value});
    stack_.push_back(static_cast<uint32_t>(nodes_.size() - 1));
  }
  uint32_t pop() {
    require(stack_.size() > (marks_.empty() ? 0 : marks_.back()), "nothing on the stack");
    const uint32_t top = stack_.back();
    stack_.pop_back();
    return top;
  }
  const Node& top() const {
    require(stack_.size() > (marks_.empty() ? 0 : marks_.back()), "nothing on the stack");
    return nodes_[stack_.back()];
  }
  size_t pop_mark() {
    require(!marks_.empty(), "no mark");
    const size_t mark = marks_.back();
    marks_.pop_back();
    return mark;
  }
  void push_tuple(size_t first) {
    const auto begin = static_cast<int64_t>(pool_.size());
    const auto count = static_cast<uint32_t>(stack_.size() - first);
    require(pool_.size() + count <= 2 * kMaxNodes, "too many values");
    pool_.insert(pool_.end(), stack_.begin() + static_cast<long>(first), stack_.end());
    stack_.resize(first);
    push(Kind::tuple, begin, count);
  }
  void push_tuple_of(size_t count) {
    require(stack_.size() - (marks_.empty() ? 0 : marks_.back()) >= count, "nothing on the stack");
    push_tuple(stack_.size() - count);
  }

  // --- Values ---
  std::string_view text_of(uint32_t index) const {
    const Node& node = nodes_[index];
    require(node.kind == Kind::text, "a text is expected");
    return pickle_.substr(static_cast<size_t>(node.value), node.count);
  }
  int64_t integer_of(uint32_t index) const {
    require(nodes_[index].kind == Kind::integer, "an integer is expected");
    return nodes_[index].value;
  }
  uint32_t item(const Node& tuple, size_t i) const {
    require(tuple.kind == Kind::tuple && i < tuple.count, "a longer tuple is expected");
    return pool_[static_cast<size_t>(tuple.value) + i];
  }
  // A dictionary or list has a place for items from its first one on: most of them stay empty.
  Items& place_for_items(Node& dict) {
    if (dict.value < 0) {
      dict.value = static_cast<int64_t>(dicts_.size());
      dicts_.emplace_back();
    }
    return dicts_[static_cast<size_t>(dict.value)];
  }
  const Items& items_of(const Node& dict) const {
    static const Items kNone;
    return dict.value < 0 ? kNone : dicts_[static_cast<size_t>(dict.value)];
  }
  void set_items(size_t first) {
    require(first > 0 && (stack_.size() - first) % 2 == 0, "keys and values do not pair");
    Node& dict = nodes_[stack_[first - 1]];
    require(dict.kind == Kind::dict, "no dictionary to fill");
    items_total_ += (stack_.size() - first) / 2;
    require(items_total_ <= kMaxItems, "too many entries");
    if (stack_.size() > first) {
      Items& items = place_for_items(dict);
      for (size_t i = first; i < stack_.size(); i += 2)
        items.emplace_back(stack_[i], stack_[i + 1]);
    }
    stack_.resize(first);
  }
  // A list is a dictionary of its items.
  void append(size_t first) {
    require(first > 0, "no list to append to");
    Node& list = nodes_[stack_[first - 1]];
    require(list.kind == Kind::list, "no list to append to");
    items_total_ += stack_.size() - first;
    require(items_total_ <= kMaxItems, "too many entries");
    if (stack_.size() > first) {
      Items& items = place_for_items(list);
      for (size_t i = first; i < stack_.size(); ++i) items.emplace_back(stack_[i], stack_[i]);
    }
    stack_.resize(first);
  }
  void memoize(uint64_t index) {
    top();
    // Picklers number what they remember one by one.
    require(index <= memo_.size() && index < kMaxNodes, "a memo out of order");
    if (index == memo_.size()) memo_.push_back(0);
    memo_[index] = stack_.back();
  }
  void recall(uint64_t index) {
    require(index < memo_.size(), "a memo that was never made");
    require(stack_.size() < kMaxNodes, "too many values");
    stack_.push_back(memo_[index]);
  }

  void push_global() {
    const std::string_view module = take_line(), symbol = take_line();
    if (module == "collections" && symbol == "OrderedDict") return push(Kind::global, kOrderedDict);
    if (module == "torch._utils") {
      if (symbol == "_rebuild_tensor_v2") return push(Kind::global, kRebuildTensor);
      if (symbol == "_rebuild_parameter") return push(Kind::global, kRebuildParameter);
    }
    if (module == "torch") {
      int64_t callable = kFirstStorage;
      for (const StorageType& type : kStorageTypes) {
        if (symbol == type.name) return push(Kind::global, callable);
        ++callable;
      }
    }
    fail(ErrorKind::corrupt,
         "{}: the pickle asks for {}.{}, which no dictionary of weights needs: refused", name_,
         shown(module), shown(symbol));
  }

  // ('storage', type, key, location, elements)
  void load_storage() {
    const Node& id = nodes_[pop()];
    require(id.kind == Kind::tuple && id.count >= 5 && text_of(item(id, 0)) == "storage",
            "a storage is expected");
    // Files of before PyTorch 1.6 have a sixth item, for storages that are views of others.
    require(id.count == 5 || nodes_[item(id, 5)].kind == Kind::none, "a view of a storage");
    const Node& type = nodes_[item(id, 1)];
    require(type.kind == Kind::global && type.value >= kFirstStorage, "a storage type is expected");
    PickledTensor storage;
    storage.type = kStorageTypes[type.value - kFirstStorage].type;
    const std::string_view key = text_of(item(id, 2));
    require(key.size() <= kMaxStorageKey, "a storage of a long name");
    storage.storage = key;
    storage.storage_elements = integer_of(item(id, 4));
    require(storage.storage_elements >= 0, "a storage of negative size");
    require(storages_.size() < kMaxNodes / 8, "too many storages");
    storages_.push_back(std::move(storage));
    push(Kind::storage, static_cast<int64_t>(storages_.size() - 1));
  }

  // (storage, offset, sizes, strides, requires_grad, hooks)
  void rebuild_tensor(const Node& arguments) {
    const Node& storage = nodes_[item(arguments, 0)];
    require(storage.kind == Kind::storage, "a storage is expected");
    PickledTensor tensor = storages_[static_cast<size_t>(storage.value)];
    tensor.offset = integer_of(item(arguments, 1));
    const Node &sizes = nodes_[item(arguments, 2)], &strides = nodes_[item(arguments, 3)];
    require(
        sizes.kind == Kind::tuple && strides.kind == Kind::tuple && sizes.count == strides.count,
        "sizes and strides are expected");
    require(sizes.count <= Shape::kMaxRank, "a tensor of more than four dimensions");
    require(tensor.offset >= 0 && tensor.offset <= tensor.storage_elements,
            "a tensor that its storage does not hold");
    int64_t last = tensor.offset;
    bool overflow = false, empty = false;
    for (uint32_t d = 0; d < sizes.count; ++d) {
      const int64_t size = integer_of(item(sizes, d)), stride = integer_of(item(strides, d));
      require(size >= 0 && stride >= 0, "a negative size or stride");
      tensor.shape.push_back(size);
      tensor.strides[d] = stride;
      int64_t reach = 0;
      if (size == 0) empty = true;
      overflow = overflow ||
                 __builtin_mul_overflow(std::max<int64_t>(size - 1, 0), stride, &reach) ||
                 __builtin_add_overflow(last, reach, &last);
    }
    // Strides of zero make a large tensor of a small storage; no writer of weights does that.
    require(!overflow && (empty || last < tensor.storage_elements) &&
                checked_bytes(tensor.shape, tensor.type) >= 0 &&
                tensor.shape.elements() <= tensor.storage_elements,
            "a tensor that its storage does not hold");
    require(tensors_.size() < kMaxNodes / 8, "too many tensors");
    tensors_.push_back(std::move(tensor));
    push(Kind::tensor, static_cast<int64_t>(tensors_.size() - 1));
  }

  void call() {
    const Node arguments = nodes_[pop()], callable = nodes_[pop()];
    require(callable.kind == Kind::global && arguments.kind == Kind::tuple,
            "a call of no function");
    switch (callable.value) {
      case kOrderedDict:
        require(arguments.count == 0, "a dictionary made of something");
        return push(Kind::dict, -1);
      case kRebuildTensor: return rebuild_tensor(arguments);
      case kRebuildParameter: {
        const Node inner = nodes_[item(arguments, 0)];
        require(inner.kind == Kind::tensor, "a tensor is expected");
        return push(Kind::tensor, inner.value);
      }
      default: damaged("a call of a storage type");
    }
  }

  void push_long(size_t bytes) {
    const std::string_view digits = take(bytes);
    require(bytes <= 8, "an integer of more than 64 bits");
    int64_t value = bytes > 0 && (digits.back() & 0x80) != 0 ? -1 : 0;
    std::memcpy(&value, digits.data(), bytes);
    push(Kind::integer, value);
  }
  void push_text(size_t bytes) {
    const auto begin = static_cast<int64_t>(at_);
    take(bytes);
    require(bytes <= std::numeric_limits<uint32_t>::max(), "a text without end");
    push(Kind::text, begin, static_cast<uint32_t>(bytes));
  }

  void step() {
    switch (const char opcode = take(1)[0]) {
      case '\x80': require(take_number(1) <= 3, "an unknown protocol"); break;
      case '}': push(Kind::dict, -1); break;
      case ']': push(Kind::list, -1); break;
      case ')': push(Kind::tuple, static_cast<int64_t>(pool_.size()), 0); break;
      case '(':
        require(marks_.size() < kMaxNodes, "too many marks");
        marks_.push_back(stack_.size());
        break;
      case 'N': push(Kind::none); break;
      case '\x88': push(Kind::boolean, 1); break;
      case '\x89': push(Kind::boolean, 0); break;
      case 'J': push(Kind::integer, static_cast<int32_t>(take_number(4))); break;
      case 'K': push(Kind::integer, static_cast<int64_t>(take_number(1))); break;
      case 'M': push(Kind::integer, static_cast<int64_t>(take_number(2))); break;
      case '\x8a': push_long(take_number(1)); break;
      case 'X': push_text(take_number(4)); break;
      case 'c': push_global(); break;
      case 'q': memoize(take_number(1)); break;
      case 'r': memoize(take_number(4)); break;
      case 'h': recall(take_number(1)); break;
      case 'j': recall(take_number(4)); break;
      case 't': push_tuple(pop_mark()); break;
      case '\x85': push_tuple_of(1); break;
      case '\x86': push_tuple_of(2); break;
      case '\x87': push_tuple_of(3); break;
      case 'Q': load_storage(); break;
      case 'R': call(); break;
      case 's': {
        require(stack_.size() - (marks_.empty() ? 0 : marks_.back()) >= 3, "nothing on the stack");
        set_items(stack_.size() - 2);
        break;
      }
      case 'u': {
        const size_t mark = pop_mark();
        require(mark > (marks_.empty() ? 0 : marks_.back()), "nothing on the stack");
        set_items(mark);
        break;
      }
      case 'a':
        require(stack_.size() - (marks_.empty() ? 0 : marks_.back()) >= 2, "nothing on the stack");
        append(stack_.size() - 1);
        break;
      case 'e': {
        const size_t mark = pop_mark();
        require(mark > (marks_.empty() ? 0 : marks_.back()), "nothing on the stack");
        append(mark);
        break;
      }
      case 'b':  // attributes of the dictionary, such as _metadata: versions of its modules
        pop();
        require(top().kind == Kind::dict, "attributes of what is no dictionary");
        break;
      case '.': stopped_ = true; break;
      default:
        fail(ErrorKind::corrupt,
             "{}: the pickle has the opcode 0x{:02x} at byte {}, which no dictionary of weights "
             "needs: refused",
             name_, static_cast<unsigned char>(opcode), at_ - 1);
    }
  }

  std::string_view pickle_;
  const std::string& name_;
  size_t at_ = 0;
  bool stopped_ = false;
  std::vector<Node> nodes_;
  std::vector<uint32_t> stack_, memo_, pool_;  // pool_: items of tuples
  std::vector<size_t> marks_;
  std::vector<Items> dicts_;
  size_t items_total_ = 0;
  std::vector<PickledTensor> storages_, tensors_;
};

}  // namespace

std::vector<PickledTensor> read_state_dict_pickle(std::string_view pickle, const std::string& name,
                                                  size_t* used) {
  Machine machine(pickle, name);
  machine.run();
  if (used != nullptr) *used = machine.used();
  return machine.tensors();
}

std::vector<std::string> read_pickled_texts(std::string_view pickle, const std::string& name,
                                            size_t* used) {
  Machine machine(pickle, name);
  machine.run();
  *used = machine.used();
  return machine.texts();
}

bool read_pickled_flag(std::string_view pickle, const std::string& name, std::string_view key,
                       size_t* used) {
  Machine machine(pickle, name);
  machine.run();
  *used = machine.used();
  return machine.flag(key);
}

}  // namespace sw
