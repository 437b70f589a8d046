// Read-only bytes of a file or of memory: mapped, or read piece by piece.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace quant {

class File {
  public:
    virtual ~File() = default;
    virtual uint64_t size() const = 0;
    virtual const std::string& name() const = 0;  // for messages

    // Address of [offset, offset + bytes): inside the mapping, or `scratch` after reading into it. Throws Error
    // (QUANT_ERR_CORRUPT past the end, QUANT_ERR_IO on a failed read).
    virtual const uint8_t* at(uint64_t offset, size_t bytes, std::vector<uint8_t>& scratch) const = 0;

    // The mapping's address, or null when the file is read piece by piece.
    virtual const uint8_t* mapping() const = 0;

    // The bytes were consumed: their resident pages may go back to the system (they can still be read again).
    virtual void release(uint64_t offset, size_t bytes) const = 0;
};

std::unique_ptr<File> open_file(const std::string& path, bool map);
std::unique_ptr<File> open_descriptor(int fd, bool map);            // does not take the descriptor over
std::unique_ptr<File> open_memory(const void* bytes, size_t size);  // not copied: must outlive the File

}  // namespace quant
