// JSON of unknown origin: nesting is limited, and every wrong type is one Error that names the file and the key.
#pragma once
#include <cstdint>
#include <string>

#include "checkpoints/file.h"

#ifndef JSON_NO_IO
#define JSON_NO_IO
#endif
#ifndef JSON_ASSERT
#define JSON_ASSERT(condition) static_cast<void>(0)
#endif
#include <nlohmann/json.hpp>

namespace quant {

using Json = nlohmann::json;

// What was read. nlohmann's lists and objects allocate memory when they are destroyed, which would end the program
// where there is none: their contents are taken out of them first.
class JsonDocument {
  public:
    JsonDocument() : root_(Json::object()) {}
    JsonDocument(JsonDocument&&) = default;
    JsonDocument& operator=(JsonDocument&&) = delete;
    ~JsonDocument() { empty(root_); }
    operator const Json&() const& { return root_; }
    operator const Json&() && = delete;  // it would not outlive the expression

  private:
    friend JsonDocument parse_json(const std::string& file, const uint8_t* text, size_t bytes);
    class Builder;
    static void empty(Json& value) noexcept;
    Json root_;
};

// `file` is for messages, here and in JsonObject.
JsonDocument parse_json(const std::string& file, const uint8_t* text, size_t bytes);
JsonDocument read_json(const std::string& path);

// Values of one object by key. A null value counts as absent.
class JsonObject {
  public:
    JsonObject(const Json& object, std::string file);

    const Json* find(const std::string& key) const;  // null if absent
    bool has(const std::string& key) const { return find(key) != nullptr; }
    int64_t integer(const std::string& key, int64_t fallback) const;
    int64_t required_integer(const std::string& key) const;
    double number(const std::string& key, double fallback) const;
    bool boolean(const std::string& key, bool fallback) const;
    std::string text(const std::string& key, const std::string& fallback) const;
    const Json& array(const std::string& key) const;  // required
    JsonObject object(const std::string& key) const;  // required
    const Json& all() const { return *object_; }
    const std::string& file() const { return file_; }

    [[noreturn]] void corrupt(const std::string& what) const;      // FILE: what
    [[noreturn]] void unsupported(const std::string& what) const;  // FILE: what

  private:
    const Json* object_;
    std::string file_;
};

// An integer that fits; false for anything else.
bool json_integer(const Json& value, int64_t* out);

}  // namespace quant
