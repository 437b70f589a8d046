// Any bytes as a GGUF file: a checkpoint or one Error. What is read decodes.
#include "checkpoints/checkpoint.h"
#include "formats/row_source.h"
#include "tests/checkpoint_fixture.h"

using namespace quant;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    for (const bool mapped : {true, false}) {
        try {
            const std::string text(reinterpret_cast<const char*>(bytes), size);
            const auto c =
                mapped ? read_gguf(open_memory(bytes, size)) : read_gguf(std::make_unique<UnmappedFile>(text));
            for (const TensorInfo& t : c->tensors) {
                std::vector<uint8_t> file_scratch;
                RowSource source(c->view(t, file_scratch), Format{});
                std::vector<uint8_t> scratch(source.scratch_bytes());
                for (const int64_t r : {int64_t{0}, t.rows - 1}) source.row(r, scratch.data());
            }
        } catch (const Error&) {
        }
    }
    return 0;
}
