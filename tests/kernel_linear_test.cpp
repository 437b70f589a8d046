// Every linear kernel of every device that runs here against the reference: formats, shapes, numbers of rows and of
// threads, extreme codes; and every weight layout against its inverse.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/scheme.h"
#include "formats/row_source.h"
#include "tests/kernel_rig.h"
#include "tests/tolerance.h"

using namespace quant;

namespace {

const char* const ggml_formats[] = {
    "s8:g32:f16:ggml",     "u4:g32:f16:z8:ggml",         "u4:g32:f16:min:ggml",        "u5:g32:f16:z16:ggml",
    "u5:g32:f16:min:ggml", "u4:g32:u6*f16/256:min:ggml", "u5:g32:u6*f16/256:min:ggml", "u6:g16:s8*f16/256:z32:ggml"};
const char* const odd_formats[] = {
    "s8:channel:f32",     "s8:tensor:f32",  "s8:g16:f16",        "s8:g24:f32",         "s8:g40:bf16",
    "s8:g96:f16",         "s8:g256:f16",    "s8:b128:f32",       "u8:channel:f32:min", "u8:channel:f16:z128",
    "u8:channel:f16:zp",  "u8:g16:f16:min", "u8:g40:f16:zp",     "u8:g64:f16:z128",    "u6:g32:f16:z32",
    "u6:channel:f16:min", "u5:g32:f16:min", "u5:channel:f32:zp", "u4:channel:f16:zp",  "u4:channel:f16:z8",
    "u4:tensor:f32:z8",   "u4:g16:f16:min", "u4:g24:f16:z8",     "u4:g40:f32:min",     "u4:g96:bf16:min",
    "u4:g256:f16:z8",     "u4:g128:f16:zp", "e4m3:g32:f16",      "e4m3:b16:f32"};

std::vector<Format> all_formats() {
    std::vector<Format> formats;
    auto add = [&](const Format& f) {
        if (std::find(formats.begin(), formats.end(), f) == formats.end()) formats.push_back(f);
    };
    for (int i = 0; const char* name = scheme_listed(i); ++i) {
        Scheme s;
        REQUIRE(scheme_parse(name, &s));
        add(s.weight);
    }
    auto parse = [&](const char* name) {
        Format f;
        INFO(name);
        REQUIRE(format_parse(name, &f));
        add(f);
    };
    for (const char* name : ggml_formats) parse(name);
    for (const char* name : odd_formats) parse(name);
    return formats;
}

struct Shape {
    int64_t rows, cols;
};
std::vector<Shape> shapes_of(const Format& f) {
    if (f.storage == Storage::planar) return {{1, 1}, {3, 7}, {17, 33}, {40, 72}, {65, 160}, {100, 257}};
    const int64_t block = f.super_group ? f.super_group : f.group;
    return {{1, block}, {17, 3 * block}, {65, (block == 32 ? 5 : 2) * block}};
}

// What a linear reads, either as floats or as codes.
struct Input {
    ValueType type = ValueType::f32;
    Matrix floats;
    Codes codes;
    Operand put(Run& run) const { return type == ValueType::f32 ? run.put(floats) : run.put(codes); }
    int rows() const { return type == ValueType::f32 ? floats.rows : codes.rows; }
    int64_t cols() const { return type == ValueType::f32 ? floats.cols : codes.cols; }
    double value(int r, int64_t c) const { return type == ValueType::f32 ? floats.row(r)[c] : codes.value(r, c); }
};

Input random_input(ValueType type, int rows, int64_t cols, Random& random) {
    Input x;
    x.type = type;
    if (type == ValueType::f32)
        x.floats = random_matrix(rows, cols, cols % 3, random);
    else
        x.codes = random_codes(type, rows, cols, random);
    return x;
}

Matrix some_rows(const Matrix& m, const std::vector<int>& rows) {
    Matrix some(static_cast<int>(rows.size()), m.cols);
    for (int i = 0; i < some.rows; ++i) std::copy_n(m.row(rows[i]), m.cols, some.row(i));
    return some;
}

Input some_rows(const Input& x, const std::vector<int>& rows) {
    Input some;
    some.type = x.type;
    if (x.type == ValueType::f32) {
        some.floats = some_rows(x.floats, rows);
        return some;
    }
    some.codes = Codes(x.type, static_cast<int>(rows.size()), x.cols());
    for (int i = 0; i < some.rows(); ++i) {
        std::copy_n(x.codes.row(rows[i]), codes_stride(x.cols()), some.codes.row(i));
        some.codes.scales[i] = x.codes.scales[rows[i]];
    }
    return some;
}

Activation activation_of(ValueType type) {
    return type == ValueType::f32 ? Activation::f32 : type == ValueType::s8 ? Activation::s8 : Activation::e4m3;
}

// int8 activations and one scale per weight row: the sum is an integer and the result is defined to the bit.
bool defined_to_the_bit(const Format& f, ValueType in) {
    return in == ValueType::s8 && !is_float(f.element) && f.element != Element::e4m3 &&
           (f.granularity == Granularity::channel || f.granularity == Granularity::tensor);
}

// |q s| + |m| of every weight: see tolerance::linear.
Matrix magnitudes(const HostWeight& w) {
    Matrix a(static_cast<int>(w.rows), w.cols);
    const WeightView view = w.view();
    for (int r = 0; r < a.rows; ++r) {
        if (is_float(w.format.element)) {
            decode_row(view, r, a.row(r));
            for (int64_t c = 0; c < a.cols; ++c) a.row(r)[c] = std::fabs(a.row(r)[c]);
            continue;
        }
        const int64_t groups = groups_per_row(w.format, w.cols);
        std::vector<uint8_t> codes(w.cols);
        std::vector<float> scales(groups), offsets(groups), decoded(w.cols);
        unpack_row(view, r, codes.data(), scales.data(), offsets.data());
        decode_row(view, r, decoded.data());
        for (int64_t c = 0; c < a.cols; ++c) {
            const int64_t g = w.format.group ? c / w.format.group : 0;
            const float offset = w.format.zero == Zero::minimum ? offsets[g] : offsets[g] * scales[g];
            a.row(r)[c] =
                std::fabs(decoded[c] - (w.format.zero == Zero::minimum ? offset : -offset)) + std::fabs(offset);
        }
    }
    return a;
}

struct Expected {
    Matrix y;                               // the reference's
    std::vector<double> bound, int8, bf16;  // [rows][weight rows]: of float kernels, of those that round x to these
    // Of a kernel, which says what it rounds x to.
    const std::vector<double>& bound_of(const Kernel& kernel) const {
        if (!kernel.rounds_to) return bound;
        return std::string(kernel.rounds_to) == "bf16" ? bf16 : int8;
    }
};

Expected expect(Device& reference, const HostWeight& w, const Input& x) {
    Run run(reference);
    const Weight weight = run.weight(w, &layout_stored, activation_of(x.type));
    const Operand out = run.put(Matrix(x.rows(), w.rows));
    run.node(reference.reference(Op::linear), {}, &weight, {x.put(run)}, out, plain_step(x.rows()), x.rows());
    Expected e;
    e.y = run.get_matrix(out, x.rows());
    if (defined_to_the_bit(w.format, x.type)) return e;
    const Matrix a = magnitudes(w);
    std::vector<double> row(w.cols);
    for (int i = 0; i < x.rows(); ++i) {
        for (int64_t c = 0; c < w.cols; ++c) row[c] = std::fabs(x.value(i, c));
        for (int r = 0; r < a.rows; ++r) {
            double products = 0, steps = 0;
            for (int64_t begin = 0; begin < w.cols; begin += 32) {
                double absmax = 0, weights = 0;
                for (int64_t c = begin; c < std::min(begin + 32, w.cols); ++c) {
                    products += row[c] * a.row(r)[c];
                    absmax = std::max(absmax, row[c]);
                    weights += a.row(r)[c];
                }
                steps += absmax / 254 * weights;
            }
            const double sum = products + (w.bias.empty() ? 0 : std::fabs(w.bias[r]));
            e.bound.push_back(tolerance::linear(w.cols, sum));
            e.int8.push_back(tolerance::linear(w.cols, sum) + tolerance::int8_activations(steps));
            e.bf16.push_back(tolerance::linear(w.cols, sum) + tolerance::bf16(products));
        }
    }
    return e;
}

struct Rig {
    Device reference{"cpu:reference", 2};
    std::vector<std::unique_ptr<TestedDevice>> tested = tested_devices();
};

bool accepts_linear(const Kernel& kernel, const HostWeight& w, ValueType in) {
    Weight weight;
    weight.format = w.format;
    weight.activation = activation_of(in);
    weight.rows = w.rows;
    weight.cols = w.cols;
    return accepts(kernel, {}, &weight, value(in, w.cols), value(ValueType::f32, w.rows));
}

// A linear ready to run; `first` is added by linear_add.
struct Linear {
    Linear(Device& device, const Kernel& kernel, const HostWeight& w, const Input& x, const Matrix& first)
        : kernel(kernel), run(device), weight(run.weight(w, kernel.weights, activation_of(x.type))), most(x.rows()) {
        in.push_back(x.put(run));
        if (kernel.op == Op::linear_add) in.push_back(run.put(first));
    }
    // Of the first n rows.
    Matrix compute(int n, int max_rows) {
        const Operand out = run.put(Matrix(most, weight.rows, weight.rows % 5));
        run.node(kernel, {}, &weight, in, out, plain_step(n), max_rows);
        Matrix y = run.get_matrix(out, most);
        for (int r = 0; r < y.rows; ++r)  // nothing but the n rows was written
            for (int64_t c = r < n ? y.cols : 0; c < y.cols + y.gap; ++c)
                if (!std::isnan(y.row(r)[c]))
                    FAIL("row " << r << " column " << c << " is outside of the result but was written");
        return y;
    }
    const Kernel& kernel;
    Run run;
    Weight weight;
    std::vector<Operand> in;
    int most;
};

// y against the expected rows: the largest error in terms of what is allowed (0 where only equality is).
double worst_error(const Matrix& y, int n, const Expected& e, const Matrix* first, const Kernel& kernel) {
    double worst = 0;
    for (int i = 0; i < n; ++i)
        for (int64_t r = 0; r < y.cols; ++r) {
            const float expected = first ? e.y.row(i)[r] + first->row(i)[r] : e.y.row(i)[r];
            if (e.bound.empty()) {
                if (!same_bits(&y.row(i)[r], &expected, 1)) worst = HUGE_VAL;
                continue;
            }
            double bound = e.bound_of(kernel)[static_cast<size_t>(i * y.cols + r)];
            if (first) bound += tolerance::add(std::fabs(e.y.row(i)[r]) + std::fabs(first->row(i)[r]));
            const double error = std::fabs(static_cast<double>(y.row(i)[r]) - expected);
            if (!(error <= bound)) worst = std::max(worst, bound > 0 && !std::isnan(error) ? error / bound : HUGE_VAL);
        }
    return worst;
}

// Numbers of rows: around every tile size for the integer kernels, fewer for the others, which share their tiling.
const std::vector<int> all_counts = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 31, 64}, some_counts = {1, 2, 5, 8, 13};

// A device other than the processor, whose driver compiles a kernel for every case, gets the cases that are `sampled`.
void check_kernels(Rig& rig, const HostWeight& w, const Input& x, bool thorough, bool sampled, Random& random) {
    Expected expected;
    for (auto& tested : rig.tested) {
        if (!sampled && tested->compiles_each_case()) continue;
        for (Op op : {Op::linear, Op::linear_add})
            for (const Kernel* kernel : tested->device.fast_kernels(op)) {
                if (!accepts_linear(*kernel, w, x.type) || !tested->tests(*kernel)) continue;
                if (expected.y.values.empty()) expected = expect(rig.reference, w, x);
                INFO(tested->name() << ": " << kernel->name << ", " << format_name(w.format) << " " << w.rows << "x"
                                    << w.cols << ", activations " << activation_name(activation_of(x.type)));
                tested->exercised.insert(kernel->name);
                REQUIRE((kernel->rounds_to != nullptr) == (tested->rounding.count(kernel->name) != 0));
                const Matrix first = random_matrix(x.rows(), w.rows, 2, random);
                const Matrix* added = op == Op::linear_add ? &first : nullptr;
                const int most = x.rows();
                Linear linear(tested->device, *kernel, w, x, first);
                const Matrix all = linear.compute(most, most);
                REQUIRE(worst_error(all, most, expected, added, *kernel) <= 1);
                if (!thorough) continue;
                // On the processor a row's result never depends on the rows beside it. Other devices sum in another
                // order where another kernel is best, and keep the tolerance; integers are the same everywhere.
                const bool same = tested->rows_are_independent() || expected.bound.empty();
                std::vector<int> counts = expected.bound.empty() ? all_counts : some_counts;
                if (tested->compiles_each_case()) counts = {1 + random.below(4), 5 + random.below(9)};
                for (int n : counts) {
                    if (n >= most) break;
                    INFO(n << " rows");
                    const Matrix y = linear.compute(n, n % 2 || tested->compiles_each_case() ? n : most);
                    REQUIRE(worst_error(y, n, expected, added, *kernel) <= 1);
                    if (!same) continue;
                    for (int i = 0; i < n; ++i) REQUIRE(same_bits(y.row(i), all.row(i), w.rows));
                }
                if (!same) continue;
                for (int row : {most / 2, most - 1}) {  // alone, as in a batch
                    const Matrix y =
                        Linear(tested->device, *kernel, w, some_rows(x, {row}), some_rows(first, {row})).compute(1, 1);
                    if (same) REQUIRE(same_bits(y.row(0), all.row(row), w.rows));
                }
                for (auto& device : tested->others) {
                    const Matrix y = Linear(*device, *kernel, w, x, first).compute(most, most);
                    for (int i = 0; i < most; ++i) REQUIRE(same_bits(y.row(i), all.row(i), w.rows));
                    const Matrix alone =
                        Linear(*device, *kernel, w, some_rows(x, {0}), some_rows(first, {0})).compute(1, 1);
                    REQUIRE(same_bits(alone.row(0), all.row(0), w.rows));
                }
            }
    }
}

}  // namespace

TEST_CASE("every linear kernel computes what the reference does", "[kernels][linear]") {
    Rig rig;
    Random random(1);
    int number = 0;
    for (const Format& format : all_formats()) {
        ++number;
        for (ValueType type : {ValueType::f32, ValueType::s8, ValueType::e4m3}) {
            const std::vector<Shape> shapes = shapes_of(format);
            for (size_t i = 0; i < shapes.size(); ++i) {
                const HostWeight w = random_weight(format, shapes[i].rows, shapes[i].cols, i % 2 == 1, random);
                const bool many = defined_to_the_bit(format, type) || i == 1;
                const Input x = random_input(type, many ? 300 : 37, w.cols, random);
                const bool last = i + 1 == shapes.size();
                const bool sampled = last || (i > 0 && i == number % shapes.size());
                check_kernels(rig, w, x, i > 0,
                              sampled && (type == ValueType::f32 || many || (number + static_cast<int>(type)) % 3 == 0),
                              random);
            }
        }
    }
    for (auto& tested : rig.tested)
        for (Op op : {Op::linear, Op::linear_add})
            for (const Kernel* kernel : tested->device.fast_kernels(op)) {
                if (!tested->tests(*kernel)) continue;
                INFO(tested->name() << ": " << kernel->name << " accepted nothing that this test tried");
                CHECK(tested->exercised.count(kernel->name) == 1);
            }
}

// Enough tiles for every multiprocessor even in the kernels' largest size, and more columns than their buffers hold at
// a time. The reference computes some of the rows.
TEST_CASE("CUDA's kernels compute large products", "[kernels][linear]") {
    Rig rig;
    Random random(5);
    const std::vector<int> rows = {0, 7, 8, 63, 64, 100, 127, 128, 191, 200, 254, 255, 256};
    std::vector<Format> formats;
    for (const Format& f : all_formats())
        if (f.storage == Storage::planar && (!f.group || f.group % 32 == 0)) formats.push_back(f);
    for (const Format& format : formats)
        for (const Shape& shape : {Shape{8400, 700}, Shape{40, 1100}})
            for (ValueType type : {ValueType::f32, ValueType::s8, ValueType::e4m3})
                for (auto& tested : rig.tested) {
                    if (!tested->is("cuda:")) continue;
                    const HostWeight w = random_weight(format, shape.rows, shape.cols, true, random);
                    const Input x = random_input(type, 257, w.cols, random);
                    const Expected expected = expect(rig.reference, w, some_rows(x, rows));
                    const Matrix first = random_matrix(257, w.rows, 0, random), some_first = some_rows(first, rows);
                    for (Op op : {Op::linear, Op::linear_add})
                        for (const Kernel* kernel : tested->device.fast_kernels(op)) {
                            if (!accepts_linear(*kernel, w, type) || std::strstr(kernel->name, "plain")) continue;
                            INFO(kernel->name << ", " << format_name(format) << " " << w.rows << "x" << w.cols
                                              << ", activations " << activation_name(activation_of(type)));
                            const Matrix y = Linear(tested->device, *kernel, w, x, first).compute(257, 257);
                            const Matrix* added = op == Op::linear_add ? &some_first : nullptr;
                            REQUIRE(worst_error(some_rows(y, rows), static_cast<int>(rows.size()), expected, added,
                                                *kernel) <= 1);
                        }
                }
}

// A device may round the input inside the linear where both are in one plan.
TEST_CASE("a linear of what its plan rounds has the bits of two plans", "[kernels][linear]") {
    Random random(9);
    for (const auto& tested : tested_devices())
        for (const char* name : {"s8:channel:f32", "u8:channel:f16:zp", "u4:channel:f16:z8", "e4m3:channel:f32"})
            for (const Shape& shape : {Shape{17, 33}, Shape{100, 257}, Shape{40, 1100}, Shape{40, 7000}})
                for (int rows : {1, 2, 3}) {
                    Format format;
                    REQUIRE(format_parse(name, &format));
                    INFO(tested->name() << ", " << name << " " << shape.rows << "x" << shape.cols << ", " << rows
                                        << " rows");
                    const ValueType type = format.element == Element::e4m3 ? ValueType::e4m3 : ValueType::s8;
                    const HostWeight host = random_weight(format, shape.rows, shape.cols, false, random);
                    Backend& backend = tested->device.backend();
                    Run run(tested->device);
                    Bound round, product;
                    round.node.op = Op::quantize;
                    round.node.in[0] = 0;
                    round.node.out = 1;
                    for (const Kernel* k : tested->device.fast_kernels(Op::quantize))
                        if (accepts(*k, round.node, nullptr, value(ValueType::f32, shape.cols),
                                    value(type, shape.cols)))
                            round.kernel = k;
                    REQUIRE(round.kernel != nullptr);
                    round.in[0] = run.put(random_matrix(rows, shape.cols, 4, random));
                    round.out = run.put(Codes(type, rows, shape.cols));
                    product.kernel = find_linear(backend, format, activation_of(type), shape.rows, shape.cols);
                    const Weight weight = run.weight(host, product.kernel->weights, activation_of(type));
                    product.node.op = Op::linear;
                    product.node.in[0] = 1;
                    product.node.out = 2;
                    product.node.weight = &weight;
                    product.in[0] = round.out;
                    product.out = run.put(Matrix(rows, shape.rows));
                    const auto compute = [&](const std::vector<std::vector<Bound>>& plans) {
                        for (const std::vector<Bound>& nodes : plans) {
                            const auto plan = backend.record(nodes, rows);
                            backend.run(*plan, plain_step(rows));
                            backend.wait();
                        }
                        return run.get_matrix(product.out, rows);
                    };
                    const Matrix together = compute({{round, product}});
                    CHECK(same_bits(together, compute({{round}, {product}})));
                }
}

TEST_CASE("every listed scheme has a fast linear on every device", "[kernels][linear]") {
    for (const auto& tested : tested_devices())
        for (int i = 0; const char* name = scheme_listed(i); ++i) {
            Scheme s;
            REQUIRE(scheme_parse(name, &s));
            INFO(name << " on " << tested->name());
            const Kernel* kernel = find_linear(tested->device.backend(), s.weight, s.activation, 256, 256);
            REQUIRE(kernel != nullptr);
            CHECK(kernel->weights->tile_rows > 0);
        }
}

TEST_CASE("linear kernels do not saturate", "[kernels][linear]") {
    Rig rig;
    Random random(2);
    for (const Format& format : all_formats()) {
        if (is_float(format.element)) continue;
        const bool ggml = format.storage == Storage::ggml;
        const HostWeight any = random_weight(format, 33, 512, false, random);
        for (uint8_t fill : {0x00, 0xff, 0x80, 0x7e}) {
            if (format.element == Element::e4m3 && fill == 0xff) continue;  // NaN
            HostWeight w = any;
            if (!ggml) {
                std::fill(w.codes.begin(), w.codes.end(), fill);
            } else {  // codes of the simple types fill the end of a block; the K-quants' are mixed with scales
                if (format.super_group) continue;
                const size_t block = codes_row_bytes(format, format.group),
                             header = block - 16 * (format.element == Element::s8 ? 2 : 1);
                for (size_t i = 0; i < w.codes.size(); ++i)
                    if (i % block >= header) w.codes[i] = fill;
            }
            for (int pattern = 0; pattern < 3; ++pattern) {  // all +127, all -127, alternating
                const int rows = 5;
                Input codes, floats;
                codes.type = ValueType::s8;
                codes.codes = Codes(ValueType::s8, rows, w.cols);
                floats.floats = Matrix(rows, w.cols);
                for (int r = 0; r < rows; ++r) {
                    RowScale& scale = codes.codes.scales[r];
                    scale.scale = 0.01f;
                    for (int64_t c = 0; c < w.cols; ++c) {
                        const int code = pattern == 0 || (pattern == 2 && c % 2) ? 127 : -127;
                        codes.codes.row(r)[c] = static_cast<uint8_t>(code);
                        scale.sum += code;
                        floats.floats.row(r)[c] = static_cast<float>(code);
                    }
                }
                const bool integers = defined_to_the_bit(format, ValueType::s8);
                check_kernels(rig, w, codes, false, integers, random);
                check_kernels(rig, w, floats, false, integers || fill == 0x80, random);
            }
        }
    }
}

TEST_CASE("a layout's unpack undoes its pack", "[kernels][layout]") {
    Random random(3);
    for (const auto& tested : tested_devices()) {
        const Device& device = tested->device;
        std::set<const Layout*> layouts;
        for (const Kernel& k : device.kernels())
            if (k.weights && k.weights->tile_rows) layouts.insert(k.weights);
        for (const Layout* layout : layouts) {
            int packed = 0;
            for (const Format& format : all_formats())
                for (const Shape& shape : shapes_of(format)) {
                    const HostWeight w = random_weight(format, shape.rows, shape.cols, false, random);
                    bool used = false;
                    for (const Kernel& k : device.kernels())
                        for (ValueType in : {ValueType::f32, ValueType::s8, ValueType::e4m3})
                            used = used || (k.weights == layout && accepts_linear(k, w, in));
                    if (!used) continue;
                    ++packed;
                    INFO(device.name() << ": " << layout->name << ", " << format_name(format) << " " << w.rows << "x"
                                       << w.cols);
                    const std::vector<uint8_t> tiles = pack(*layout, w);
                    const size_t tile_bytes = layout->tile_bytes(format, w.cols);
                    const int64_t groups = groups_per_row(format, w.cols);
                    for (int64_t r = 0; r < w.rows; ++r) {
                        const uint8_t* tile = tiles.data() + r / layout->tile_rows * tile_bytes;
                        const int row = static_cast<int>(r % layout->tile_rows);
                        const size_t bytes = is_float(format.element) ? codes_row_bytes(format, w.cols) : w.cols;
                        std::vector<uint8_t> codes(bytes), expected_codes(bytes);
                        std::vector<float> scales(groups), offsets(groups), expected_scales(groups),
                            expected_offsets(groups);
                        layout->unpack(format, w.cols, tile, row, codes.data(), scales.data(), offsets.data());
                        if (is_float(format.element))
                            std::copy_n(w.codes.data() + r * bytes, bytes, expected_codes.data());
                        else
                            unpack_row(w.view(), r, expected_codes.data(), expected_scales.data(),
                                       expected_offsets.data());
                        REQUIRE(codes == expected_codes);
                        REQUIRE(scales == expected_scales);
                        REQUIRE(offsets == expected_offsets);
                    }
                }
            INFO(layout->name);
            CHECK(packed > 0);
        }
    }
}

TEST_CASE("a packed matrix has the rows that it was packed from", "[kernels][layout]") {
    Random random(4);
    int checked = 0;
    for (const char* name : {"rows16", "rows8", "rows8x8"}) {
        const Layout* const layout = find_layout(name);
        REQUIRE(layout != nullptr);
        for (const Format& format : all_formats()) {
            if (format.storage != Storage::planar || !layout_keeps(*layout, format)) continue;
            for (const int64_t cols : {int64_t{256}, int64_t{72}}) {
                INFO(name << " " << format_name(format) << " " << cols);
                const HostWeight w = random_weight(format, 37, cols, false, random);
                const std::vector<uint8_t> tiles = pack(*layout, w);
                WeightView packed;
                packed.format = format;
                packed.rows = w.rows;
                packed.cols = w.cols;
                packed.codes = tiles.data();
                packed.layout = layout;
                RowSource source(packed, format);
                std::vector<uint8_t> scratch(source.scratch_bytes());
                const WeightView expected = w.view();
                for (int64_t r = 0; r < w.rows; ++r) {
                    const WeightView row = source.row(r, scratch.data()), wanted = row_view(expected, r);
                    const auto same = [&](const uint8_t* a, const uint8_t* b, size_t bytes) {
                        return std::equal(a, a + bytes, b);
                    };
                    REQUIRE(same(row.codes, wanted.codes, codes_row_bytes(format, cols)));
                    const size_t groups =
                        static_cast<size_t>(is_float(format.element) ? 0 : groups_per_row(format, cols));
                    REQUIRE(same(row.scales, wanted.scales, groups * float_type_bytes(format.scale)));
                    const size_t zero_bytes = format.zero == Zero::minimum   ? float_type_bytes(format.scale)
                                              : format.zero == Zero::integer ? 1
                                                                             : 0;
                    REQUIRE(same(row.zeros, wanted.zeros, groups * zero_bytes));
                }
                ++checked;
            }
        }
    }
    CHECK(checked > 100);
}
