// Kernels that work on rows alone: embed, norms, quantize, silu_mul, add, select_rows, rope_angles.
#include <algorithm>

#include "backends/vulkan/kernels.h"
#include "formats/error.h"

namespace quant {
namespace vulkan {
namespace {

constexpr uint32_t threads = 256;
constexpr int few_rows = 8;  // a workgroup each leaves most of the device idle

// ---- embed ------------------------------------------------------------------------------------------------------

struct EmbedPush {
    VkDeviceAddress row_count, tokens, codes, scales, zeros, result;
    int32_t first_row, end_row, table_rows;
    uint32_t cols, row_bytes, group, groups, block_bytes, zero_point, result_stride;
};

void emit_embed(quant::Recorder& base, const Bound& b) {
    Recorder& recorder = recorder_of(base);
    const Weight& w = *b.node.weight;
    const Format& f = w.format;
    const StoredOffsets at = stored_offsets(f, w.rows, w.cols);
    const auto* table = static_cast<const DeviceBuffer*>(w.data.buffer);
    EmbedPush push{};
    push.row_count = recorder.row_count(b.out);
    push.tokens = recorder.step_array(StepArray::tokens);
    push.result = address_of(b.out.data);
    push.table_rows = static_cast<int32_t>(w.rows);
    push.cols = static_cast<uint32_t>(w.cols);
    const size_t row_bytes = codes_row_bytes(f, w.cols);
    push.row_bytes = static_cast<uint32_t>(row_bytes);
    push.group = f.group;
    push.groups = static_cast<uint32_t>(is_float(f.element) ? 1 : groups_per_row(f, w.cols));
    push.block_bytes = static_cast<uint32_t>(
        f.storage == Storage::ggml ? codes_row_bytes(f, f.super_group ? f.super_group : f.group) : 0);
    push.zero_point = f.zero_point;
    push.result_stride = static_cast<uint32_t>(b.out.stride);
    const size_t scales = scales_bytes(f, w.rows, w.cols), zeros = zeros_bytes(f, w.rows, w.cols);
    if (scales) push.scales = address_of({w.data.buffer, w.data.offset + at.scales, scales});
    if (zeros) push.zeros = address_of({w.data.buffer, w.data.offset + at.zeros, zeros});
    const std::vector<uint32_t> constants = {threads,
                                             static_cast<uint32_t>(f.element),
                                             static_cast<uint32_t>(f.granularity),
                                             static_cast<uint32_t>(f.scale),
                                             static_cast<uint32_t>(f.scale_code),
                                             static_cast<uint32_t>(f.zero),
                                             f.storage == Storage::ggml ? 1u : 0u};
    int64_t row = 0;
    for (const DeviceBuffer::Piece& piece : table->pieces) {  // the rows that lie whole in it
        const size_t first_byte = w.data.offset + static_cast<size_t>(row) * row_bytes;
        if (first_byte < piece.begin || first_byte >= piece.end || row == w.rows) continue;
        const int64_t end = std::min<int64_t>(w.rows, row + static_cast<int64_t>((piece.end - first_byte) / row_bytes));
        if (end == row) fail(QUANT_ERR_UNSUPPORTED, "a row of " + w.name + " is larger than one allocation");
        // Where the table does not begin at 4 bytes in the piece, begin with an earlier row that does.
        int64_t first = row;
        while (((first_byte - piece.begin) - static_cast<size_t>(row - first) * row_bytes) % 4 != 0) {
            if (first == 0 || first_byte - piece.begin < static_cast<size_t>(row - first + 1) * row_bytes)
                fail(QUANT_ERR_UNSUPPORTED, w.name + " in " + format_name(f) + " cannot be cut into allocations");
            --first;
        }
        push.codes =
            piece.allocation.address + (first_byte - piece.begin) - static_cast<size_t>(row - first) * row_bytes;
        push.first_row = static_cast<int32_t>(first);
        push.end_row = static_cast<int32_t>(end);
        recorder.dispatch(Shader::embed, constants, push, divide_up(w.cols, threads),
                          static_cast<uint32_t>(recorder.most_rows(b.out)));
        row = end;
    }
}

// ---- One workgroup a row ------------------------------------------------------------------------------------------

struct RowwisePush {
    VkDeviceAddress row_count, in0, in1, gains, result, row_scales;
    uint32_t cols, in0_stride, in1_stride, result_stride;
    float eps;
    uint32_t span;
};
enum class Rowwise : uint32_t { copy, rmsnorm, silu_mul };

template <Rowwise op>
void emit_rowwise(quant::Recorder& base, const Bound& b) {
    Recorder& recorder = recorder_of(base);
    const bool quantized = b.out.type != ValueType::f32;
    RowwisePush push{};
    push.row_count = recorder.row_count(b.in[0]);
    push.in0 = address_of(b.in[0].data);
    if (op == Rowwise::silu_mul) push.in1 = address_of(b.in[1].data);
    if (op == Rowwise::rmsnorm) push.gains = address_of(b.node.weight->data);
    push.result = address_of(b.out.data);
    push.row_scales = push.result + (quantized ? b.out.row_scales : 0);
    push.cols = static_cast<uint32_t>(b.in[0].cols);
    push.in0_stride = static_cast<uint32_t>(b.in[0].stride);
    push.in1_stride = static_cast<uint32_t>(b.in[1].stride);
    push.result_stride = static_cast<uint32_t>(quantized ? b.out.stride / 4 : b.out.stride);
    push.eps = b.node.eps;
    const bool split = op == Rowwise::silu_mul && !quantized;
    push.span = split ? 4 * threads : push.cols;
    const uint32_t wide =
        recorder.max_rows <= few_rows && !split ? recorder.device.physical.workgroup_threads : threads;
    recorder.dispatch(Shader::rowwise, {wide, static_cast<uint32_t>(op), static_cast<uint32_t>(b.out.type)}, push,
                      split ? divide_up(push.cols, push.span) : 1, static_cast<uint32_t>(recorder.most_rows(b.in[0])));
}

// ---- Elementwise --------------------------------------------------------------------------------------------------

struct RowsPush {
    VkDeviceAddress row_count, index, in0, in1, result;
    uint32_t cols, in0_stride, in1_stride, result_stride;
};
enum class Elementwise : uint32_t { add, select_rows, rope_angles };

template <Elementwise op>
void emit_rows(quant::Recorder& base, const Bound& b) {
    Recorder& recorder = recorder_of(base);
    RowsPush push{};
    push.row_count = recorder.row_count(b.out);
    if (op == Elementwise::select_rows) push.index = recorder.step_array(StepArray::output_rows);
    if (op == Elementwise::rope_angles) push.index = recorder.step_array(StepArray::positions);
    push.in0 = address_of(op == Elementwise::rope_angles ? b.node.weight->data : b.in[0].data);
    if (op == Elementwise::add) push.in1 = address_of(b.in[1].data);
    push.result = address_of(b.out.data);
    push.cols = static_cast<uint32_t>(b.out.cols);
    push.in0_stride = static_cast<uint32_t>(b.in[0].stride);
    push.in1_stride = static_cast<uint32_t>(b.in[1].stride);
    push.result_stride = static_cast<uint32_t>(b.out.stride);
    recorder.dispatch(Shader::rows, {threads, static_cast<uint32_t>(op)}, push, divide_up(push.cols, threads),
                      static_cast<uint32_t>(recorder.most_rows(b.out)));
}

// ---- What they take -----------------------------------------------------------------------------------------------

bool takes_all(const Node&, const Weight*, const Value*, const Value*) {
    return true;
}
bool takes_quantized_result(const Node&, const Weight*, const Value*, const Value* out) {
    return out && out->type != ValueType::f32;
}
bool takes_float_result(const Node&, const Weight*, const Value*, const Value* out) {
    return out && out->type == ValueType::f32;
}
bool takes_float_vector(const Node&, const Weight* weight, const Value*, const Value*) {
    return weight && weight->format.element == Element::f32;
}
bool takes_float_vector_to_codes(const Node& node, const Weight* weight, const Value* in0, const Value* out) {
    return takes_float_vector(node, weight, in0, out) && takes_quantized_result(node, weight, in0, out);
}

}  // namespace

void append_row_kernels(std::vector<Kernel>& table) {
    const Kernel kernels[] = {
        {"embed", Op::embed, nullptr, takes_all, emit_embed},
        {"rope_angles", Op::rope_angles, nullptr, takes_float_vector, emit_rows<Elementwise::rope_angles>},
        {"rmsnorm", Op::rmsnorm, nullptr, takes_float_vector, emit_rowwise<Rowwise::rmsnorm>},
        {"rmsnorm_quantize", Op::rmsnorm_quantize, nullptr, takes_float_vector_to_codes,
         emit_rowwise<Rowwise::rmsnorm>},
        {"quantize", Op::quantize, nullptr, takes_quantized_result, emit_rowwise<Rowwise::copy>},
        {"silu_mul", Op::silu_mul, nullptr, takes_float_result, emit_rowwise<Rowwise::silu_mul>},
        {"silu_mul_quantize", Op::silu_mul_quantize, nullptr, takes_quantized_result, emit_rowwise<Rowwise::silu_mul>},
        {"add", Op::add, nullptr, takes_all, emit_rows<Elementwise::add>},
        {"select_rows", Op::select_rows, nullptr, takes_all, emit_rows<Elementwise::select_rows>},
    };
    table.insert(table.end(), std::begin(kernels), std::end(kernels));
}

}  // namespace vulkan
}  // namespace quant
