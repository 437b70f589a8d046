// Any bytes as a safetensors file: tensors inside the file, or one Error.
#include "checkpoints/safetensors.h"

#include "formats/error.h"

using namespace quant;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    try {
        const auto file = open_memory(bytes, size);
        std::vector<uint8_t> scratch;
        for (const SafeTensor& t : read_safetensors(*file)) {
            const uint8_t* const at = file->at(t.at, static_cast<size_t>(t.bytes), scratch);
            if (t.bytes != 0 && at[t.bytes - 1] == 0 && t.name.empty()) return 0;
        }
    } catch (const Error&) {
    }
    return 0;
}
