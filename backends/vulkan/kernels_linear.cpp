// Linears: matrix-vector shaders for plans of few rows, matrix-matrix shaders for the others.
#include <algorithm>
#include <utility>

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
    VkDeviceAddress parameters;  // of an expanded weight
    VkDeviceAddress gains;       // of a folded rmsnorm
    float eps;
};
static_assert(sizeof(LinearPush) <= push_constant_bytes, "push constants are too large");
constexpr uint32_t has_residual = 1, has_bias = 2;

struct ArrangePush {
    VkDeviceAddress row_count, input, row_scales, result, factors, second;
    uint32_t cols, input_stride, quads;
    float eps;
};

// How a workgroup's results are divided: rows of inputs, rows of weights, bytes of columns (matmul_cooperative.comp).
struct MatrixTiling {
    uint32_t tile_inputs, tile_weights, part_inputs, part_weights, depth;
    uint32_t threads() const { return 32 * (tile_inputs / part_inputs) * (tile_weights / part_weights); }
};
constexpr MatrixTiling tiling = {128, 128, 32, 32, 128};

constexpr size_t expanded_bytes = size_t{256} << 20;  // of a weight at a time
// Of matvec_row.comp: columns of the input in an invocation's registers and sums in a workgroup's shared memory; the
// multiprocessors of a large device, and invocations that keep one of them busy.
constexpr uint32_t row_columns = 32, row_sums = 2048, multiprocessors = 132, multiprocessor_threads = 512;
constexpr uint32_t vector_threads = 128, row_threads = 256, matmul_tile = 64, most_workgroups = 65535;

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
// Floats that cooperative matrices take as f16.
bool takes_rounded(const Node&, const Weight* weight, const Value* in0, const Value*) {
    if (!weight || !in0 || in0->type != ValueType::f32 || !layout_holds(weight->format)) return false;
    const Format& f = weight->format;
    return f.element != Element::f32 && f.element != Element::bf16 && f.group % 4 == 0;
}

// Codes and weights that f16 holds as they are; a scale of the whole weight row multiplies results.
bool exact_in_f16(const Weight& w, ValueType in) {
    return in != ValueType::f32 && !is_float(w.format.element) && one_scale_a_row(w.format) &&
           (w.format.zero == Zero::none || w.format.zero == Zero::constant);
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

// What does not depend on the piece of the weight.
LinearPush push_of(const Recorder& recorder, const Bound& b, const TileShape& tile) {
    const Weight& w = *b.node.weight;
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
    return push;
}

// Specialization constants 0 to 4 of every shader that reads a weight, and 5 and 6 of those that read its input.
std::vector<uint32_t> weight_constants(uint32_t threads, const Weight& w, const TileShape& tile) {
    return {threads, static_cast<uint32_t>(tile.code), static_cast<uint32_t>(tile.parameters),
            w.format.zero == Zero::minimum ? 1u : 0u, tile.group_cols};
}
std::vector<uint32_t> input_constants(const Weight& w, const TileShape& tile, const Operand& in, const LinearPush& push,
                                      uint32_t threads) {
    const bool codes = in.type != ValueType::f32;
    const bool aligned = push.input % 16 == 0 && in.stride % 4 == 0 && w.cols % 4 == 0;
    std::vector<uint32_t> constants = weight_constants(threads, w, tile);
    constants.insert(constants.end(), {static_cast<uint32_t>(in.type), aligned || codes ? 0u : 1u});
    return constants;
}

// What matvec_row.comp does with a weight; threads 0: nothing.
struct RowTiling {
    uint32_t threads = 0, units = 1, rows = 2, planes = 0;
    bool ahead = false;
};
RowTiling row_tiling(const PhysicalDevice& device, const Bound& b, const TileShape& tile) {
    RowTiling t;
    const bool codes = tile.code == Code::s8 || tile.code == Code::u8 || tile.code == Code::u4;
    if (codes && device.integer_dot_used && (tile.code != Code::s8 || b.node.weight->format.zero == Zero::none))
        t.planes = b.kernel->rounds_to ? 2 : 3;
    const uint32_t most_units = std::max(1u, row_columns / (4 * tile.chunk_quads));
    t.units = std::min(most_units, std::max(1u, tile.row_chunks / (t.planes ? 128 : 256)));
    const uint32_t subgroup = device.subgroup_size;
    const uint32_t threads = divide_up(divide_up(tile.row_chunks, t.units), subgroup) * subgroup;
    // What is on its way, and registers that leave room for several workgroups.
    t.rows = t.units == 1 || (t.units == 2 && threads <= 256) ? 4 : 2;
    t.ahead = t.planes && t.units == 1 && threads <= 256;
    if (device.shuffles && subgroup >= t.rows && threads <= device.workgroup_threads) t.threads = threads;
    return t;
}

void emit_row(Recorder& recorder, const Bound& b, const TileShape& tile, const LinearPush& push, const RowTiling& t) {
    const Folded& folded = recorder.folded();
    const uint32_t groups = tile.chunk_groups();
    const bool pairs = tile.parameters == Parameters::f16_scale && groups % 2 == 0 &&
                       tile.group_cols * groups == 32 * tile.chunk_quads;
    const uint32_t subgroups = t.threads / recorder.device.physical.subgroup_size;
    const uint32_t results = folded.silu ? t.rows / 2 : t.rows;  // of a step
    const uint32_t most_steps = std::max(1u, std::min(row_sums / (t.rows * subgroups), t.threads / results));
    each_piece(*b.node.weight, tile, push, [&](const LinearPush& p) {
        const uint32_t steps = divide_up(folded.silu ? p.rows / 2 : p.rows, results);
        const uint32_t resident = multiprocessors * divide_up(multiprocessor_threads, t.threads);
        const uint32_t wanted = std::max(resident, divide_up(steps, most_steps));
        const uint32_t each = divide_up(steps, wanted);  // as many for one workgroup as for any other
        std::vector<uint32_t> constants = input_constants(*b.node.weight, tile, b.in[0], push, t.threads);
        constants.insert(constants.end(), {t.units, t.rows, each, subgroups, folded.producer != nullptr,
                                           folded.silu != nullptr, groups, pairs, p.cols, p.parameter_words, t.ahead});
        if (t.planes) constants.push_back(t.planes);
        recorder.dispatch(t.planes ? Shader::matvec_row_dot : Shader::matvec_row, constants, p, divide_up(steps, each));
    });
}

template <bool integer>
void emit_vector(Recorder& recorder, const Bound& b, const TileShape& tile, int most_rows) {
    const Weight& w = *b.node.weight;
    const Folded& folded = recorder.folded();
    LinearPush push = push_of(recorder, b, tile);
    if (folded.producer) {
        push.gains = address_of(folded.producer->node.weight->data);
        push.eps = folded.producer->node.eps;
    }
    if (!integer && recorder.max_rows == 1) {
        const RowTiling t = row_tiling(recorder.device.physical, b, tile);
        if (t.threads) return emit_row(recorder, b, tile, push, t);
    }
    uint32_t inputs = 1;
    while (inputs < static_cast<uint32_t>(most_rows)) inputs *= 2;
    // Weight rows of a subgroup share what they read of the input; chunks of 16 bytes on their way hide the memory's
    // latency. Both are limited by registers.
    const uint32_t rows_each = inputs <= 4 || folded.silu ? 2 : 1;
    const uint32_t units = inputs > 2 ? 1 : 2;
    std::vector<uint32_t> constants = input_constants(w, tile, b.in[0], push, vector_threads);
    constants.insert(constants.end(), {inputs, rows_each, units});
    if (!integer) constants.insert(constants.end(), {folded.producer != nullptr, folded.silu != nullptr});
    constants.push_back(w.cols % (int64_t{32} * tile.chunk_quads) == 0);
    if (!integer) constants.push_back(tile.chunk_groups());
    const PhysicalDevice& device = recorder.device.physical;
    const bool dot = integer && device.integer_dot_used;
    const Shader shader = !integer ? Shader::matvec : dot ? Shader::matvec_integer_dot : Shader::matvec_integer;
    const uint32_t rows_together = std::max(1u, vector_threads / device.subgroup_size) * rows_each;
    each_piece(w, tile, push, [&](const LinearPush& p) {
        recorder.dispatch(shader, constants, p, std::min(most_workgroups, divide_up(p.rows, rows_together)));
    });
}

template <bool integer>
void emit_plain(Recorder& recorder, const Bound& b, const TileShape& tile, int most_rows) {
    const LinearPush push = push_of(recorder, b, tile);
    const bool dot = integer && recorder.device.physical.integer_dot_used;
    const Shader shader = !integer ? Shader::matmul : dot ? Shader::matmul_integer_dot : Shader::matmul_integer;
    const std::vector<uint32_t> constants = input_constants(*b.node.weight, tile, b.in[0], push, vector_threads);
    each_piece(*b.node.weight, tile, push, [&](const LinearPush& p) {
        recorder.dispatch(shader, constants, p, divide_up(p.rows, matmul_tile), divide_up(most_rows, matmul_tile));
    });
}

// Input and weight are first brought into the order and the type that the matrices want; a weight of f16 is so already.
template <bool integer>
void emit_matrices(Recorder& recorder, const Bound& b, const TileShape& tile, int most_rows, MatrixShape shape) {
    const Weight& w = *b.node.weight;
    const bool expanded = tile.code != Code::f16;
    const bool scaled_later = integer || (one_scale_a_row(w.format) && (tile.parameters == Parameters::f16_scale ||
                                                                        tile.parameters == Parameters::f32_scale));
    const size_t quads = size_t{tile.row_chunks} * tile.chunk_quads, row_bytes = quads * (integer ? 4 : 8);
    const size_t padded_rows = size_t{divide_up(most_rows, tiling.tile_inputs)} * tiling.tile_inputs;
    const size_t most_weights =
        std::max<size_t>(1, std::min<size_t>(most_workgroups, expanded_bytes / row_bytes) / layout_tile_rows) *
        layout_tile_rows;
    const size_t weights = std::min<size_t>(w.rows, most_weights);  // that are expanded at a time
    size_t bytes = 0;
    auto reserve = [&](size_t n) { return std::exchange(bytes, bytes + (n + 15) / 16 * 16); };
    const size_t input_at = reserve(padded_rows * row_bytes), factors_at = reserve(padded_rows * 4);
    const size_t weight_at = reserve(expanded ? weights * row_bytes : 0);
    const size_t parameters_at = reserve(expanded ? weights * 8 : 0);
    const VkDeviceAddress workspace = recorder.workspace(bytes);

    LinearPush push = push_of(recorder, b, tile);
    ArrangePush arrange{};
    arrange.row_count = push.row_count;
    arrange.input = push.input;
    arrange.row_scales = push.row_scales;
    arrange.result = workspace + input_at;
    arrange.factors = workspace + factors_at;
    arrange.cols = push.cols;
    arrange.input_stride = push.input_stride;
    arrange.quads = static_cast<uint32_t>(quads);
    std::vector<uint32_t> arranging = input_constants(w, tile, b.in[0], push, row_threads);
    arranging.push_back(integer);
    if (const Bound* producer = recorder.folded().producer) {
        const bool norm = producer->node.op == Op::rmsnorm;
        arrange.second = address_of(norm ? producer->node.weight->data : producer->in[1].data);
        arrange.eps = producer->node.eps;
        arranging.push_back(norm ? 1 : 2);
    }
    recorder.dispatch(Shader::arrange, arranging, arrange, static_cast<uint32_t>(most_rows));

    std::vector<uint32_t> expanding = weight_constants(row_threads, w, tile);
    expanding.insert(expanding.end(), {integer, scaled_later});
    std::vector<uint32_t> multiplying = weight_constants(tiling.threads(), w, tile);
    multiplying.insert(multiplying.end(), {tiling.tile_inputs, tiling.tile_weights, tiling.part_inputs,
                                           tiling.part_weights, tiling.depth, shape.m, shape.n, shape.k, scaled_later});
    push.parameters = workspace + parameters_at;
    bool reads_expanded = false;  // a product since the last barrier
    each_piece(w, tile, push, [&](LinearPush p) {
        LinearPush product = p;
        product.input = arrange.result;
        if (!integer) product.row_scales = arrange.factors;
        product.row_chunks = static_cast<uint32_t>(row_bytes / 16);
        const size_t tile_bytes = size_t{16} * tile.tile_chunks;
        for (uint32_t done = 0; done < p.rows; done += product.rows) {
            product.rows = std::min(p.rows - done, static_cast<uint32_t>(expanded ? weights : p.rows));
            product.first_row = p.first_row + done;
            if (expanded) {
                LinearPush expand = p;
                expand.weight += done / layout_tile_rows * tile_bytes;
                expand.result = product.weight = workspace + weight_at;
                if (reads_expanded) recorder.barrier();
                recorder.dispatch(Shader::expand, expanding, expand, product.rows);
            }
            if (expanded || !reads_expanded) recorder.barrier();
            reads_expanded = true;
            recorder.dispatch(integer ? Shader::matmul_cooperative_integer : Shader::matmul_cooperative, multiplying,
                              product, divide_up(most_rows, tiling.tile_inputs),
                              divide_up(product.rows, tiling.tile_weights));
        }
    });
}

template <bool integer>
void emit_linear(quant::Recorder& base, const Bound& b) {
    Recorder& recorder = recorder_of(base);
    const PhysicalDevice& device = recorder.device.physical;
    const Weight& w = *b.node.weight;
    const TileShape tile = tile_shape(w.format, w.cols);
    const int most_rows = recorder.most_rows(b.out);
    recorder.add_work(2.0 * most_rows * static_cast<double>(w.rows) * static_cast<double>(w.cols));
    const MatrixShape shape = integer ? device.integer_matrices : device.float_matrices;
    if (most_rows <= vector_rows && tile.group_cols % 4 == 0)
        emit_vector<integer>(recorder, b, tile, most_rows);
    else if (shape.m && (integer || b.kernel->rounds_to || exact_in_f16(w, b.in[0].type)))
        emit_matrices<integer>(recorder, b, tile, most_rows, shape);
    else
        emit_plain<integer>(recorder, b, tile, most_rows);
}

}  // namespace

void append_linear_kernels(std::vector<Kernel>& table, const PhysicalDevice& device, bool exact) {
    if (device.float_matrices.m && !exact) {
        const char* const rounds_to =
            device.integer_dot_used ? "f16, for one row of integer weights 16 bit fixed point" : "f16";
        table.insert(
            table.end(),
            {{"linear f16", Op::linear, &layout_lanes8, takes_rounded, emit_linear<false>, rounds_to},
             {"linear_add f16", Op::linear_add, &layout_lanes8, takes_rounded, emit_linear<false>, rounds_to}});
    }
    const Kernel kernels[] = {
        {"linear int8", Op::linear, &layout_lanes8, takes_integer, emit_linear<true>},
        {"linear_add int8", Op::linear_add, &layout_lanes8, takes_integer, emit_linear<true>},
        {"linear", Op::linear, &layout_lanes8, takes_float, emit_linear<false>},
        {"linear_add", Op::linear_add, &layout_lanes8, takes_float, emit_linear<false>},
    };
    table.insert(table.end(), std::begin(kernels), std::end(kernels));
}

std::vector<Kernel> kernel_table(const PhysicalDevice& device, bool exact) {
    std::vector<Kernel> table;
    append_linear_kernels(table, device, exact);
    append_attention_kernels(table, device, exact);
    append_row_kernels(table);
    return table;
}

}  // namespace vulkan
}  // namespace quant
