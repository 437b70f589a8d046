// The kernels of rows, of every device that runs here, against the reference. Linear kernels are in
// kernel_linear_test.cpp, those of the cache in kernel_cache_test.cpp.
#include <algorithm>
#include <limits>

#include "tests/kernel_checks.h"

using namespace quant;

namespace {

const std::vector<int64_t> widths = {1, 7, 16, 33, 64, 100, 257, 1000};

// Codes of y against y itself, which the kernel knows up to error(row, column, y). Scale, sum and padding included.
template <class Error>
void check_codes(const Codes& codes, const Matrix& y, Error error) {
    for (int r = 0; r < y.rows; ++r) {
        INFO("row " << r);
        double largest = 0, largest_error = 0;
        int32_t sum = 0;
        for (int64_t c = 0; c < y.cols; ++c) {
            const double v = y.row(r)[c];
            largest = std::max(largest, std::fabs(v));
            largest_error = std::max<double>(largest_error, error(r, c, v));
            if (codes.type == ValueType::s8) sum += static_cast<int8_t>(codes.row(r)[c]);
        }
        const double limit = codes.type == ValueType::s8 ? 127 : 448;
        const double scale = std::max(largest / limit, codes.type == ValueType::s8 ? 0 : 1.0 / (448 * 512));
        CHECK(std::fabs(codes.scales[r].scale - scale) <= largest_error / limit + 4 * tolerance::u * scale);
        CHECK(codes.scales[r].sum == sum);
        for (int64_t c = y.cols; c < codes_stride(y.cols); ++c) REQUIRE(codes.row(r)[c] == 0);
        double worst = 0;
        for (int64_t c = 0; c < y.cols; ++c) {
            const double v = y.row(r)[c];
            const double bound = codes.type == ValueType::s8 ? tolerance::quantize_s8(scale, 2 * largest_error)
                                                             : tolerance::quantize_e4m3(v, scale, 2 * largest_error);
            worst = std::max(worst, std::fabs(codes.value(r, c) - v) - bound);
        }
        CHECK(worst <= 0);
    }
}

Codes compute_codes(Device& device, const Kernel& kernel, const Node& node, const HostWeight* weight,
                    const std::vector<const Matrix*>& in, ValueType type) {
    Run run(device);
    Weight w;
    if (weight) w = run.weight(*weight, &layout_stored);
    std::vector<Operand> operands;
    for (const Matrix* m : in) operands.push_back(run.put(*m));
    const int rows = in[0]->rows;
    Codes poison(type, rows, in[0]->cols);
    std::fill(poison.codes.begin(), poison.codes.end(), uint8_t{0xaa});
    const Operand out = run.put(poison);
    run.node(kernel, node, weight ? &w : nullptr, operands, out, plain_step(rows), rows);
    return run.get_codes(out, rows);
}

const std::vector<ValueType> code_types = {ValueType::s8, ValueType::e4m3};

}  // namespace

TEST_CASE("quantize kernels give the reference's bits", "[kernels]") {
    Device reference("cpu:reference", 2);
    auto devices = tested_devices();
    Random random(10);
    const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    for (ValueType type : code_types)
        for (int64_t cols : widths) {
            Matrix x = random_matrix(12, cols, 3, random);
            for (int64_t c = 0; c < cols; ++c) {
                x.row(1)[c] = 0;
                x.row(2)[c] *= 1e-44f;  // denormal
                x.row(3)[c] *= 1e37f;
                x.row(4)[c] = c % 5 ? x.row(4)[c] : nan;
                x.row(5)[c] = c == cols / 2 ? infinity : x.row(5)[c];
                x.row(6)[c] = nan;
                x.row(7)[c] = c == 0 ? 127.f : static_cast<float>(random.below(253) - 126) + 0.5f;  // ties
                x.row(8)[c] = c == 0 ? -448.f : static_cast<float>(random.below(896) - 448);
                x.row(9)[c] = -0.f;
                x.row(10)[c] = c == cols / 2 ? -infinity : x.row(10)[c];
            }
            auto go = [&](Device& d, const Kernel& k) {
                Codes y = compute_codes(d, k, {}, nullptr, {&x}, type);
                // The sign of a NaN that arithmetic makes (infinity / infinity) is the processor's own.
                if (type == ValueType::e4m3)
                    for (uint8_t& code : y.codes)
                        if (code == 0xff) code = 0x7f;
                return y;
            };
            const Codes expected = go(reference, reference.reference(Op::quantize));
            each_kernel(devices, Op::quantize, {}, nullptr, value(ValueType::f32, cols), value(type, cols), go,
                        [&](const Codes& y) {
                            CHECK(y.codes == expected.codes);
                            CHECK(same_bits(y, expected));
                        });
        }
    fail_if_unexercised(devices, {Op::quantize});
}

TEST_CASE("rmsnorm kernels, alone and with quantize", "[kernels]") {
    Device reference("cpu:reference", 2);
    auto devices = tested_devices();
    Random random(11);
    for (int64_t cols : widths) {
        Matrix x = random_matrix(13, cols, 5, random);
        std::fill_n(x.row(3), cols, 0.f);
        for (int64_t c = 0; c < cols; ++c) x.row(4)[c] *= 1e-3f;
        const HostWeight gain = random_vector(cols, 0.5f, 2, random);
        Node node;
        node.eps = 1e-5f;
        Weight described;
        described.rows = cols;
        described.cols = 1;
        auto go = [&](Device& d, const Kernel& k) { return compute(d, k, node, &gain, {&x}, cols, plain_step(13)); };
        const Matrix expected = go(reference, reference.reference(Op::rmsnorm));
        auto bound = [&](int, int64_t, double e) { return tolerance::rmsnorm(cols, e); };
        each_kernel(devices, Op::rmsnorm, node, &described, value(ValueType::f32, cols), value(ValueType::f32, cols),
                    go, [&](const Matrix& y) { CHECK(worst_error(y, expected, bound) <= 1); });
        for (ValueType type : code_types)
            each_kernel(
                devices, Op::rmsnorm_quantize, node, &described, value(ValueType::f32, cols), value(type, cols),
                [&](Device& d, const Kernel& k) { return compute_codes(d, k, node, &gain, {&x}, type); },
                [&](const Codes& y) { check_codes(y, expected, bound); });
    }
    fail_if_unexercised(devices, {Op::rmsnorm, Op::rmsnorm_quantize});
}

TEST_CASE("silu_mul kernels, alone and with quantize", "[kernels]") {
    Device reference("cpu:reference", 2);
    auto devices = tested_devices();
    Random random(12);
    for (int64_t cols : widths) {
        Matrix gate = random_matrix(9, cols, 1, random), up = random_matrix(9, cols, 4, random);
        for (int64_t c = 0; c < cols; ++c) {
            gate.row(1)[c] = random.uniform(-110, 110);
            gate.row(2)[c] = random.uniform(-1e-6f, 1e-6f);
            gate.row(3)[c] = random.uniform(-1e5f, 1e5f);
            gate.row(4)[c] = 0;
        }
        auto go = [&](Device& d, const Kernel& k) {
            return compute(d, k, {}, nullptr, {&gate, &up}, cols, plain_step(9));
        };
        const Matrix expected = go(reference, reference.reference(Op::silu_mul));
        const Value f32 = value(ValueType::f32, cols);
        auto bound = [&](int r, int64_t c, double e) {
            return tolerance::silu_mul(e, static_cast<double>(gate.row(r)[c]) * up.row(r)[c]);
        };
        each_kernel(devices, Op::silu_mul, {}, nullptr, f32, f32, go,
                    [&](const Matrix& y) { CHECK(worst_error(y, expected, bound) <= 1); });
        for (ValueType type : code_types)
            each_kernel(
                devices, Op::silu_mul_quantize, {}, nullptr, f32, value(type, cols),
                [&](Device& d, const Kernel& k) {
                    return compute_codes(d, k, {}, nullptr, {&gate, &up}, type);
                },
                [&](const Codes& y) { check_codes(y, expected, bound); });
    }
    fail_if_unexercised(devices, {Op::silu_mul, Op::silu_mul_quantize});
}

TEST_CASE("kernels that move or add rows are exact", "[kernels]") {
    Device reference("cpu:reference", 2);
    auto devices = tested_devices();
    Random random(13);
    for (int64_t cols : widths) {
        const Matrix a = random_matrix(11, cols, 2, random), b = random_matrix(11, cols, 0, random);
        const Value f32 = value(ValueType::f32, cols);
        auto equal = [](const Matrix& expected) {
            return [expected](const Matrix& y) { CHECK(same_bits(y, expected)); };
        };

        auto add = [&](Device& d, const Kernel& k) {
            return compute(d, k, {}, nullptr, {&a, &b}, cols, plain_step(11));
        };
        each_kernel(devices, Op::add, {}, nullptr, f32, f32, add, equal(add(reference, reference.reference(Op::add))));

        auto select = [&](Device& d, const Kernel& k) {
            Run run(d);
            Operand out = run.put(Matrix(3, cols, 1));
            out.rows = Rows::outputs;
            Step step = plain_step(11);
            step.output_rows = {10, 0, 4};
            run.node(k, {}, nullptr, {run.put(a)}, out, step, 11);
            return run.get_matrix(out, 3);
        };
        each_kernel(devices, Op::select_rows, {}, nullptr, f32, f32, select,
                    equal(select(reference, reference.reference(Op::select_rows))));
    }
    for (const char* name :
         {"f32", "f16", "bf16", "s8:g32:f16", "u4:g32:f16:min", "e4m3:channel:f32", "s8:g32:f16:ggml",
          "u4:g32:f16:z8:ggml", "u4:g32:f16:min:ggml", "u5:g32:f16:z16:ggml", "u5:g32:f16:min:ggml",
          "u4:g32:u6*f16/256:min:ggml", "u5:g32:u6*f16/256:min:ggml", "u6:g16:s8*f16/256:z32:ggml"}) {
        Format format;
        REQUIRE(format_parse(name, &format));
        for (int64_t cols : format.storage == Storage::ggml ? std::vector<int64_t>{256, 1024} : widths) {
            const HostWeight table = random_weight(format, 50, cols, false, random);
            Weight described;
            described.format = format;
            described.rows = 50;
            described.cols = cols;
            Step step = plain_step(11);
            for (int32_t& token : step.tokens) token = random.below(50);
            INFO(name);
            auto embed = [&](Device& d, const Kernel& k) { return compute(d, k, {}, &table, {}, cols, step); };
            const Matrix expected = embed(reference, reference.reference(Op::embed));
            const Value f32 = value(ValueType::f32, cols);
            each_kernel(devices, Op::embed, {}, &described, f32, f32, embed,
                        [&](const Matrix& y) { CHECK(same_bits(y, expected)); });
        }
    }
    fail_if_unexercised(devices, {Op::add, Op::select_rows, Op::embed});
}

TEST_CASE("top_k kernels find what the reference and a sort find", "[kernels]") {
    Device reference("cpu:reference", 2);
    auto devices = tested_devices();
    Random random(16);
    const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    for (int64_t cols : {1, 2, 63, 64, 65, 1000, 1024, 1025, 5000, 32001}) {
        Matrix x = random_matrix(9, cols, 3, random);
        for (int64_t c = 0; c < cols; ++c) {
            x.row(1)[c] = static_cast<float>(random.below(5) - 2);  // ties, also across all threads
            x.row(2)[c] = 0;
            x.row(3)[c] = nan;
            x.row(4)[c] = c % 3 == 0 ? nan : c % 3 == 1 ? -infinity : x.row(4)[c];
            x.row(5)[c] = c % 2 == 0 ? -0.f : 0.f;
            x.row(6)[c] = c % 1024 == 7 ? 5 + x.row(6)[c] : x.row(6)[c];  // the largest ones of a few threads
            x.row(7)[c] = c % 100 == 50 ? infinity : x.row(7)[c];
            x.row(8)[c] = static_cast<float>(c);
        }
        for (int64_t k : {1, 2, 40, 64}) {
            if (k > cols) continue;
            auto go = [&](Device& d, const Kernel& kernel) {
                return compute(d, kernel, {}, nullptr, {&x}, 2 * k, plain_step(9));
            };
            const Matrix expected = go(reference, reference.reference(Op::top_k));
            for (int r = 0; r < x.rows; ++r) {
                std::vector<int64_t> order;
                for (int64_t c = 0; c < cols; ++c) order.push_back(c);
                std::stable_sort(order.begin(), order.end(), [row = x.row(r)](int64_t a, int64_t b) {
                    return std::isnan(row[b]) ? !std::isnan(row[a]) : row[a] > row[b];
                });
                for (int64_t i = 0; i < k; ++i) {
                    REQUIRE(expected.row(r)[2 * i + 1] == static_cast<float>(order[i]));
                    REQUIRE(same_bits(expected.row(r) + 2 * i, x.row(r) + order[i], 1));
                }
            }
            each_kernel(devices, Op::top_k, {}, nullptr, value(ValueType::f32, cols), value(ValueType::f32, 2 * k), go,
                        [&](const Matrix& y) { CHECK(same_bits(y, expected)); });
        }
    }
    fail_if_unexercised(devices, {Op::top_k});
}
