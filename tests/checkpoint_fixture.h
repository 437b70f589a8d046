// Files for the checkpoint tests and fuzzers: bytes in memory, and a directory that goes away.
#pragma once
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "checkpoints/file.h"
#include "formats/error.h"

namespace quant {

class TemporaryDirectory {
  public:
    TemporaryDirectory() {
        std::random_device random;
        path_ = std::filesystem::temp_directory_path() / ("quant_test_" + std::to_string(random()));
        std::filesystem::create_directories(path_);
    }
    ~TemporaryDirectory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

    std::string path() const { return path_.string(); }
    std::string path(const std::string& name) const { return (path_ / name).string(); }
    void write(const std::string& name, const std::string& bytes) const {
        std::ofstream(path(name), std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    }
    std::string read(const std::string& name) const {
        std::ifstream in(path(name), std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }

  private:
    std::filesystem::path path_;
};

inline std::string read_bytes(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// Bytes that behave as a file which is read piece by piece.
class UnmappedFile : public File {
  public:
    explicit UnmappedFile(std::string bytes) : bytes_(std::move(bytes)) {}
    uint64_t size() const override { return bytes_.size(); }
    const std::string& name() const override { return name_; }
    const uint8_t* mapping() const override { return nullptr; }
    void release(uint64_t, size_t) const override {}
    const uint8_t* at(uint64_t offset, size_t bytes, std::vector<uint8_t>& scratch) const override {
        if (bytes > bytes_.size() || offset > bytes_.size() - bytes) fail(QUANT_ERR_CORRUPT, "past the end");
        scratch.assign(bytes_.begin() + static_cast<std::ptrdiff_t>(offset),
                       bytes_.begin() + static_cast<std::ptrdiff_t>(offset + bytes));
        return scratch.data();
    }

  private:
    std::string bytes_, name_ = "test file";
};

// GGUF bytes, value by value; independent of the library's own writer.
struct GgufBytes {
    std::string bytes;

    template <class T>
    GgufBytes& value(T v) {
        char raw[sizeof(T)];
        std::memcpy(raw, &v, sizeof(T));
        bytes.append(raw, sizeof(T));
        return *this;
    }
    GgufBytes& text(const std::string& s) {
        value(static_cast<uint64_t>(s.size()));
        bytes += s;
        return *this;
    }
    GgufBytes& header(uint64_t tensors, uint64_t pairs, uint32_t version = 3) {
        bytes += "GGUF";
        return value(version).value(tensors).value(pairs);
    }
    GgufBytes& pair(const std::string& key, uint32_t type) { return text(key).value(type); }
    GgufBytes& tensor(const std::string& name, const std::vector<uint64_t>& sizes, uint32_t type, uint64_t offset) {
        text(name).value(static_cast<uint32_t>(sizes.size()));
        for (const uint64_t size : sizes) value(size);
        return value(type).value(offset);
    }
    GgufBytes& data(size_t n) {
        bytes.resize((bytes.size() + 31) / 32 * 32);
        for (size_t i = 0; i < n; ++i) bytes += static_cast<char>(i);
        return *this;
    }
};

inline std::string safetensors_bytes(const std::string& header, size_t data) {
    GgufBytes out;
    out.text(header);
    return out.bytes + std::string(data, '\x3c');
}

}  // namespace quant
