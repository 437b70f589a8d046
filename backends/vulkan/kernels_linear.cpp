// Linears: matrix-vector shaders for plans of few rows, matrix-matrix shaders for the others.
#include <algorithm>

#include "backends/vulkan/kernels.h"
#include "backends/vulkan/layout.h"
#include "formats/error.h"

namespace quant {
namespace vulkan {
namespace {

struct LinearPush {
    VkDeviceAddress row_count, weight, input, row_scales, result, residual, bias;
    uint32_t rows, first_row, cols, input_stride, result_stride, residual_stride;
    uint32_t tile_chunks, row_chunks, parameters_at, parameter_words;
    float zero;
    uint32_t flags;
};
static_assert(sizeof(LinearPush) <= push_constant_bytes, "push constants are too large");
constexpr uint32_t has_residual = 1, has_bias = 2;

constexpr int vector_rows = 8;  // input rows that the matrix-vector shaders take
constexpr uint32_t vector_threads = 128, matmul_tile = 64, most_workgroups = 65535;

bool one_scale_a_row(const Format& f) {
    return f.granularity == Granularity::channel || f.granularity == Granularity::tensor;
}

// int8 times integer codes with one scale a row: the result is defined to the bit.
bool takes_integer(const Node&, const Weight* weight, const Value* in0, const Value*) {
    if (!weight || !in0 || in0->type != ValueType::s8 || !layout_holds(weight->format)) return false;
    const Format& f = weight->format;
    return !is_float(f.element) && f.element != Element::e4m3 && one_scale_a_row(f) && weight->cols <= 65536;
}
bool takes_float(const Node& node, const Weight* weight, const Value* in0, const Value* out) {
    return weight && in0 && layout_holds(weight->format) && !takes_integer(node, weight, in0, out);
}

// Runs `dispatch(push)` for the weight's tiles in every piece of its memory.
template <class Dispatch>
void each_piece(const Weight& w, const TileShape& tile, LinearPush push, Dispatch dispatch) {
    const size_t tile_bytes = size_t{16} * tile.tile_chunks;
    const int64_t tiles = (w.rows + layout_tile_rows - 1) / layout_tile_rows;
    int64_t first = 0;
    for (const DeviceBuffer::Piece& piece : static_cast<const DeviceBuffer*>(w.data.buffer)->pieces) {
        const size_t at = w.data.offset + static_cast<size_t>(first) * tile_bytes;
        if (first == tiles || at < piece.begin || at >= piece.end) continue;
        const int64_t end = std::min<int64_t>(tiles, first + static_cast<int64_t>((piece.end - at) / tile_bytes));
        if (end == first) fail(QUANT_ERR_UNSUPPORTED, "eight rows of " + w.name + " are larger than one allocation");
        push.weight = piece.allocation.address + (at - piece.begin);
        push.first_row = static_cast<uint32_t>(first * layout_tile_rows);
        push.rows = static_cast<uint32_t>(std::min(w.rows, end * layout_tile_rows) - first * layout_tile_rows);
        dispatch(push);
        first = end;
    }
}

template <bool integer>
void emit_linear(quant::Recorder& base, const Bound& b) {
    Recorder& recorder = recorder_of(base);
    const PhysicalDevice& device = recorder.device.physical;
    const Weight& w = *b.node.weight;
    const TileShape tile = tile_shape(w.format, w.cols);
    const Operand& in = b.in[0];
    const bool codes = in.type != ValueType::f32;
    LinearPush push{};
    push.row_count = recorder.row_count(b.out);
    push.input = address_of(in.data);
    push.row_scales = push.input + (codes ? in.row_scales : 0);
    push.result = address_of(b.out.data);
    push.cols = static_cast<uint32_t>(w.cols);
    push.input_stride = static_cast<uint32_t>(codes ? in.stride / 4 : in.stride);
    push.result_stride = static_cast<uint32_t>(b.out.stride);
    push.tile_chunks = tile.tile_chunks;
    push.row_chunks = tile.row_chunks;
    push.parameters_at = tile.row_chunks * layout_tile_rows * 4;
    push.parameter_words = tile.parameter_words;
    push.zero = w.format.zero == Zero::constant ? w.format.zero_point : 0.f;
    if (b.node.op == Op::linear_add) {
        push.residual = address_of(b.in[1].data);
        push.residual_stride = static_cast<uint32_t>(b.in[1].stride);
        push.flags |= has_residual;
    }
    if (w.bias.buffer) {
        push.bias = address_of(w.bias);
        push.flags |= has_bias;
    }
    const int most_rows = recorder.most_rows(b.out);
    recorder.add_work(2.0 * most_rows * static_cast<double>(w.rows) * static_cast<double>(w.cols));

    const bool aligned = !codes && push.input % 16 == 0 && in.stride % 4 == 0 && w.cols % 4 == 0;
    std::vector<uint32_t> constants = {vector_threads,
                                       static_cast<uint32_t>(tile.code),
                                       static_cast<uint32_t>(tile.parameters),
                                       w.format.zero == Zero::minimum ? 1u : 0u,
                                       tile.group_cols,
                                       static_cast<uint32_t>(in.type),
                                       aligned || codes ? 0u : 1u};
    const bool vector = most_rows <= vector_rows && tile.group_cols % 4 == 0;
    const bool dot = integer && device.integer_dot_used;
    if (vector) {
        uint32_t inputs = 1;
        while (inputs < static_cast<uint32_t>(most_rows)) inputs *= 2;
        const uint32_t rows_each = inputs <= 2 ? 2 : 1;
        constants.insert(constants.end(), {inputs, rows_each});
        const Shader shader = !integer ? Shader::matvec : dot ? Shader::matvec_integer_dot : Shader::matvec_integer;
        const uint32_t rows_together = std::max(1u, vector_threads / device.subgroup_size) * rows_each;
        each_piece(w, tile, push, [&](const LinearPush& p) {
            recorder.dispatch(shader, constants, p, std::min(most_workgroups, divide_up(p.rows, rows_together)));
        });
        return;
    }
    const Shader shader = !integer ? Shader::matmul : dot ? Shader::matmul_integer_dot : Shader::matmul_integer;
    each_piece(w, tile, push, [&](const LinearPush& p) {
        recorder.dispatch(shader, constants, p, divide_up(p.rows, matmul_tile), divide_up(most_rows, matmul_tile));
    });
}

}  // namespace

void append_linear_kernels(std::vector<Kernel>& table) {
    const Kernel kernels[] = {
        {"linear int8", Op::linear, &layout_lanes8, takes_integer, emit_linear<true>},
        {"linear_add int8", Op::linear_add, &layout_lanes8, takes_integer, emit_linear<true>},
        {"linear", Op::linear, &layout_lanes8, takes_float, emit_linear<false>},
        {"linear_add", Op::linear_add, &layout_lanes8, takes_float, emit_linear<false>},
    };
    table.insert(table.end(), std::begin(kernels), std::end(kernels));
}

std::vector<Kernel> kernel_table() {
    std::vector<Kernel> table;
    append_linear_kernels(table);
    append_attention_kernels(table);
    append_row_kernels(table);
    return table;
}

}  // namespace vulkan
}  // namespace quant
