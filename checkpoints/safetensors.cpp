#include "checkpoints/safetensors.h"

#include <cstring>

#include "checkpoints/json.h"
#include "checkpoints/ranges.h"
#include "formats/error.h"

namespace quant {

std::vector<SafeTensor> read_safetensors(const File& file) {
    constexpr uint64_t longest_header = 100'000'000;  // the format's own limit
    std::vector<uint8_t> scratch;
    uint64_t length = 0;
    if (file.size() < 8) fail(QUANT_ERR_CORRUPT, file.name() + " is too short for a safetensors file");
    std::memcpy(&length, file.at(0, 8, scratch), 8);
    if (length > file.size() - 8 || length > longest_header)
        fail(QUANT_ERR_CORRUPT,
             file.name() + ": the header is longer than the file; it is truncated or not safetensors");
    const uint64_t data = 8 + length, data_bytes = file.size() - data;
    const size_t header_bytes = static_cast<size_t>(length);
    const JsonDocument json = parse_json(file.name(), file.at(8, header_bytes, scratch), header_bytes);
    const JsonObject header(json, file.name());

    std::vector<SafeTensor> tensors;
    Ranges ranges(file.name());
    for (const auto& item : header.all().items()) {
        if (item.key() == "__metadata__") continue;
        SafeTensor t;
        t.name = item.key();
        const JsonObject entry(item.value(), file.name() + ": tensor " + t.name);
        t.dtype = entry.text("dtype", "");
        for (const Json& size : entry.array("shape")) {
            t.shape.push_back(0);
            if (!json_integer(size, &t.shape.back()) || t.shape.back() < 0) entry.corrupt("its shape is not a shape");
        }
        const Json& offsets = entry.array("data_offsets");
        int64_t begin = -1, end = -1;
        if (offsets.size() != 2 || !json_integer(offsets[0], &begin) || !json_integer(offsets[1], &end) || begin < 0 ||
            end < begin)
            entry.corrupt("its data_offsets are not a range");
        if (static_cast<uint64_t>(end) > data_bytes)
            entry.corrupt("it reaches beyond the end of the file; it is truncated");
        t.at = data + static_cast<uint64_t>(begin);
        t.bytes = static_cast<uint64_t>(end - begin);
        if (t.bytes != 0) ranges.add(t.at, t.bytes, t.name);
        tensors.push_back(std::move(t));
    }
    ranges.check();
    return tensors;
}

}  // namespace quant
