// Typed key/value metadata in GGUF's vocabulary ("llama.block_count", "tokenizer.ggml.tokens", ...). Every checkpoint
// kind is translated to it, so models/ reads one vocabulary and the writer stores it as it is.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace quant {

using MetadataValue = std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<int64_t>,
                                   std::vector<double>, std::vector<std::string>>;

class Metadata {
  public:
    bool has(const std::string& key) const { return values_.count(key) != 0; }
    void set(const std::string& key, MetadataValue value) { values_[key] = std::move(value); }
    void erase(const std::string& key) { values_.erase(key); }

    // The value, or `fallback` if the key is absent. A value of the wrong kind or out of range throws
    // QUANT_ERR_CORRUPT naming the key. Integers convert to each other and to float where exact.
    int64_t integer(const std::string& key, int64_t fallback) const;
    double number(const std::string& key, double fallback) const;
    bool boolean(const std::string& key, bool fallback) const;
    std::string text(const std::string& key, const std::string& fallback) const;
    int64_t required_integer(const std::string& key) const;  // absent: QUANT_ERR_CORRUPT

    // Null if absent or of another kind.
    const std::vector<std::string>* strings(const std::string& key) const;
    const std::vector<int64_t>* integers(const std::string& key) const;
    const std::vector<double>* numbers(const std::string& key) const;

    const std::map<std::string, MetadataValue>& all() const { return values_; }

  private:
    std::map<std::string, MetadataValue> values_;
};

}  // namespace quant
