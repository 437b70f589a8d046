// What the tests of kernels share beside the rig: every fast kernel of every device, compared with an expectation.
#pragma once
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "tests/kernel_rig.h"
#include "tests/tolerance.h"

namespace quant {

inline void fail_if_unexercised(const std::vector<std::unique_ptr<TestedDevice>>& devices,
                                std::initializer_list<Op> ops) {
    for (auto& tested : devices)
        for (Op op : ops)
            for (const Kernel* kernel : tested->device.fast_kernels(op)) {
                if (!tested->tests(*kernel)) continue;
                INFO(tested->name() << ": " << kernel->name << " accepted nothing that this test tried");
                CHECK(tested->exercised.count(kernel->name) == 1);
            }
}

// Runs `go(device, kernel)` for every fast kernel of `op` that accepts the node, with 1, 2 and 3 threads: the bits must
// be the same. Then `check(result)`.
template <class Go, class Check>
void each_kernel(std::vector<std::unique_ptr<TestedDevice>>& devices, Op op, const Node& node, const Weight* weight,
                 const Value& in0, const Value& out, Go go, Check check) {
    for (auto& tested : devices)
        for (const Kernel* kernel : tested->device.fast_kernels(op)) {
            if (!accepts(*kernel, node, weight, in0, out) || !tested->tests(*kernel)) continue;
            INFO(tested->name() << ": " << kernel->name << ", " << in0.cols << " -> " << out.cols << " columns");
            tested->exercised.insert(kernel->name);
            const auto result = go(tested->device, *kernel);
            for (auto& other : tested->others) REQUIRE(same_bits(go(*other, *kernel), result));
            check(result);
        }
}

// The largest |y - expected| / bound(row, column, expected); infinite where y has written outside of its columns.
template <class Bound>
double worst_error(const Matrix& y, const Matrix& expected, Bound bound) {
    double worst = 0;
    for (int r = 0; r < y.rows; ++r) {
        for (int64_t c = 0; c < y.cols; ++c) {
            const double e = expected.row(r)[c], error = std::fabs(y.row(r)[c] - e);
            const double allowed = bound(r, c, e);
            if (!(error <= allowed)) worst = std::max(worst, allowed > 0 && error > 0 ? error / allowed : HUGE_VAL);
        }
        for (int64_t c = y.cols; c < y.cols + y.gap; ++c)
            if (!std::isnan(y.row(r)[c])) worst = HUGE_VAL;
    }
    return worst;
}

inline Matrix compute(Device& device, const Kernel& kernel, const Node& node, const HostWeight* weight,
                      const std::vector<const Matrix*>& in, int64_t out_cols, const Step& step) {
    Run run(device);
    Weight w;
    if (weight) w = run.weight(*weight, &layout_stored);
    std::vector<Operand> operands;
    for (const Matrix* m : in) operands.push_back(run.put(*m));
    const int rows = step.rows();
    const Operand out = run.put(Matrix(rows, out_cols, out_cols % 3));
    run.node(kernel, node, weight ? &w : nullptr, operands, out, step, rows);
    return run.get_matrix(out, rows);
}

inline HostWeight random_vector(int64_t n, float low, float high, Random& random) {
    std::vector<float> values;
    for (int64_t i = 0; i < n; ++i) values.push_back(random.uniform(low, high));
    return vector_weight(values);
}

}  // namespace quant
