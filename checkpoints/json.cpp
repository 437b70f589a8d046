#include "checkpoints/json.h"

#include <limits>
#include <vector>

#include "formats/error.h"

namespace quant {
namespace {

constexpr int deepest = 64;  // the files that we read nest less than ten deep

// Brackets outside of strings. The parser need not recurse, but what it builds would be as deep as the text says.
bool nests_too_deep(const uint8_t* text, size_t bytes) {
    int depth = 0;
    for (size_t i = 0; i < bytes; ++i) {
        const uint8_t c = text[i];
        if (c == '"') {
            for (++i; i < bytes && text[i] != '"'; ++i)
                if (text[i] == '\\') ++i;
        } else if (c == '[' || c == '{') {
            if (++depth > deepest) return true;
        } else if (c == ']' || c == '}') {
            --depth;
        }
    }
    return false;
}

}  // namespace

// Builds the document in place, so that the document also takes apart what has become of it when memory runs out.
class JsonDocument::Builder : public nlohmann::json_sax<Json> {
  public:
    explicit Builder(Json& root) : place_(&root) {}
    bool null() override { return put(nullptr); }
    bool boolean(bool v) override { return put(v); }
    bool number_integer(number_integer_t v) override { return put(v); }
    bool number_unsigned(number_unsigned_t v) override { return put(v); }
    bool number_float(number_float_t v, const string_t&) override { return put(v); }
    bool string(string_t& v) override { return put(std::move(v)); }
    bool binary(binary_t&) override { return false; }
    bool start_object(size_t) override { return open(Json::object()); }
    bool start_array(size_t) override { return open(Json::array()); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }
    bool key(string_t& k) override {
        place_ = &open_.back()->get_ref<Json::object_t&>()[std::move(k)];
        return true;
    }
    bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

  private:
    bool put(Json&& value) {
        if (!open_.empty() && open_.back()->is_array()) {
            auto& list = open_.back()->get_ref<Json::array_t&>();
            list.push_back(std::move(value));
            place_ = &list.back();
        } else {
            empty(*place_);  // of an earlier value of the same key
            *place_ = std::move(value);
        }
        return true;
    }
    bool open(Json&& container) {
        put(std::move(container));
        open_.push_back(place_);
        return true;
    }
    bool close() {
        open_.pop_back();
        return true;
    }

    Json* place_;              // of the value last put, or of the next of an object
    std::vector<Json*> open_;  // lists and objects around it
};

void JsonDocument::empty(Json& value) noexcept {
    if (value.is_array()) {
        auto& list = value.get_ref<Json::array_t&>();
        for (Json& item : list) empty(item);
        list.clear();
    } else if (value.is_object()) {
        auto& object = value.get_ref<Json::object_t&>();
        for (auto& item : object) empty(item.second);
        object.clear();
    }
}

JsonDocument parse_json(const std::string& file, const uint8_t* text, size_t bytes) {
    if (nests_too_deep(text, bytes)) fail(QUANT_ERR_CORRUPT, file + ": the JSON nests too deep");
    JsonDocument document;
    JsonDocument::Builder builder(document.root_);
    if (!Json::sax_parse(text, text + bytes, &builder))
        fail(QUANT_ERR_CORRUPT, file + " is not valid JSON; is it complete?");
    return document;
}

JsonDocument read_json(const std::string& path) {
    const std::unique_ptr<File> file = open_file(path, false);
    if (file->size() > (uint64_t{1} << 28)) fail(QUANT_ERR_UNSUPPORTED, path + " is too large for a JSON file");
    std::vector<uint8_t> text;
    const size_t bytes = static_cast<size_t>(file->size());
    return parse_json(path, file->at(0, bytes, text), bytes);
}

JsonObject::JsonObject(const Json& object, std::string file) : object_(&object), file_(std::move(file)) {
    if (!object.is_object()) corrupt("a JSON object is expected");
}

void JsonObject::corrupt(const std::string& what) const {
    fail(QUANT_ERR_CORRUPT, file_ + ": " + what);
}
void JsonObject::unsupported(const std::string& what) const {
    fail(QUANT_ERR_UNSUPPORTED, file_ + ": " + what);
}

const Json* JsonObject::find(const std::string& key) const {
    const auto found = object_->find(key);
    return found == object_->end() || found->is_null() ? nullptr : &*found;
}

int64_t JsonObject::integer(const std::string& key, int64_t fallback) const {
    const Json* const value = find(key);
    if (value && !json_integer(*value, &fallback)) corrupt("\"" + key + "\" is not an integer");
    return fallback;
}

int64_t JsonObject::required_integer(const std::string& key) const {
    if (!has(key)) corrupt("\"" + key + "\" is missing");
    return integer(key, 0);
}

double JsonObject::number(const std::string& key, double fallback) const {
    const Json* const value = find(key);
    if (value && !value->is_number()) corrupt("\"" + key + "\" is not a number");
    return value ? value->get<double>() : fallback;
}

bool JsonObject::boolean(const std::string& key, bool fallback) const {
    const Json* const value = find(key);
    if (value && !value->is_boolean()) corrupt("\"" + key + "\" is not true or false");
    return value ? value->get<bool>() : fallback;
}

std::string JsonObject::text(const std::string& key, const std::string& fallback) const {
    const Json* const value = find(key);
    if (value && !value->is_string()) corrupt("\"" + key + "\" is not a text");
    return value ? value->get_ref<const std::string&>() : fallback;
}

const Json& JsonObject::array(const std::string& key) const {
    const Json* const value = find(key);
    if (!value || !value->is_array()) corrupt("the list \"" + key + "\" is missing");
    return *value;
}

JsonObject JsonObject::object(const std::string& key) const {
    const Json* const value = find(key);
    if (!value || !value->is_object()) corrupt("the object \"" + key + "\" is missing");
    return JsonObject(*value, file_);
}

bool json_integer(const Json& value, int64_t* out) {
    if (value.is_number_unsigned()) {
        const uint64_t u = value.get<uint64_t>();
        if (u > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return false;
        *out = static_cast<int64_t>(u);
        return true;
    }
    if (!value.is_number_integer()) return false;
    *out = value.get<int64_t>();
    return true;
}

}  // namespace quant
