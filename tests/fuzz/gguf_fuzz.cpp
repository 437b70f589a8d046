// Any bytes as a GGUF file: a checkpoint or one Error. What is read decodes.
#include "checkpoints/checkpoint.h"
#include "formats/decode.h"
#include "tests/checkpoint_fixture.h"

using namespace quant;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    for (const bool mapped : {true, false}) {
        try {
            const std::string text(reinterpret_cast<const char*>(bytes), size);
            const auto c =
                mapped ? read_gguf(open_memory(bytes, size)) : read_gguf(std::make_unique<UnmappedFile>(text));
            for (const TensorInfo& t : c->tensors) {
                std::vector<uint8_t> scratch;
                const WeightView w = c->view(t, scratch);
                std::vector<float> row(static_cast<size_t>(w.cols));
                for (const int64_t r : {int64_t{0}, w.rows - 1}) decode_row(w, r, row.data());
            }
        } catch (const Error&) {
        }
    }
    return 0;
}
