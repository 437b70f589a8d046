#include "checkpoints/metadata.h"

#include <limits>

#include "formats/error.h"

namespace quant {
namespace {

[[noreturn]] void wrong_kind(const std::string& key, const char* wanted) {
    fail(QUANT_ERR_CORRUPT, "metadata key " + key + " is not " + wanted);
}

template <class T>
const T* get(const std::map<std::string, MetadataValue>& values, const std::string& key) {
    const auto found = values.find(key);
    return found == values.end() ? nullptr : std::get_if<T>(&found->second);
}

constexpr int64_t exact_in_double = int64_t{1} << 53;

}  // namespace

int64_t Metadata::integer(const std::string& key, int64_t fallback) const {
    if (!has(key)) return fallback;
    if (const auto* i = get<int64_t>(values_, key)) return *i;
    const auto* u = get<uint64_t>(values_, key);
    if (!u || *u > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) wrong_kind(key, "an integer of 63 bits");
    return static_cast<int64_t>(*u);
}

double Metadata::number(const std::string& key, double fallback) const {
    if (!has(key)) return fallback;
    if (const auto* d = get<double>(values_, key)) return *d;
    if (!get<int64_t>(values_, key) && !get<uint64_t>(values_, key)) wrong_kind(key, "a number");
    const int64_t i = integer(key, 0);
    if (i > exact_in_double || i < -exact_in_double) wrong_kind(key, "a number of at most 53 bits");
    return static_cast<double>(i);
}

bool Metadata::boolean(const std::string& key, bool fallback) const {
    if (!has(key)) return fallback;
    const auto* b = get<bool>(values_, key);
    if (!b) wrong_kind(key, "true or false");
    return *b;
}

std::string Metadata::text(const std::string& key, const std::string& fallback) const {
    if (!has(key)) return fallback;
    const auto* s = get<std::string>(values_, key);
    if (!s) wrong_kind(key, "a text");
    return *s;
}

int64_t Metadata::required_integer(const std::string& key) const {
    if (!has(key)) fail(QUANT_ERR_CORRUPT, "metadata key " + key + " is missing; the model cannot be used without it");
    return integer(key, 0);
}

const std::vector<std::string>* Metadata::strings(const std::string& key) const {
    return get<std::vector<std::string>>(values_, key);
}
const std::vector<int64_t>* Metadata::integers(const std::string& key) const {
    return get<std::vector<int64_t>>(values_, key);
}
const std::vector<double>* Metadata::numbers(const std::string& key) const {
    return get<std::vector<double>>(values_, key);
}

}  // namespace quant
