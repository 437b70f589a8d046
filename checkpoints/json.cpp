#include "checkpoints/json.h"

#include <limits>

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

Json parse_json(const std::string& file, const uint8_t* text, size_t bytes) {
    if (nests_too_deep(text, bytes)) fail(QUANT_ERR_CORRUPT, file + ": the JSON nests too deep");
    Json out = Json::parse(text, text + bytes, nullptr, false);
    if (out.is_discarded()) fail(QUANT_ERR_CORRUPT, file + " is not valid JSON; is it complete?");
    return out;
}

Json read_json(const std::string& path) {
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
