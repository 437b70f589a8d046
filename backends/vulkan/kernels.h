// The kernel table of a Vulkan device. Every row takes every format that it says; a linear's rows choose between
// matrix-vector and matrix-matrix shaders by the number of rows that a plan is recorded for.
#pragma once
#include "backends/vulkan/recorder.h"

namespace quant {
namespace vulkan {

// `exact` leaves out kernels that round float activations.
std::vector<Kernel> kernel_table(const PhysicalDevice& device, bool exact);

void append_row_kernels(std::vector<Kernel>& table);  // kernels_rows.cpp
// kernels_linear.cpp
void append_linear_kernels(std::vector<Kernel>& table, const PhysicalDevice& device, bool exact);
// kernels_attention.cpp
void append_attention_kernels(std::vector<Kernel>& table, const PhysicalDevice& device, bool exact);

// Whether attention_row.comp takes the node in a plan of so many rows.
bool attends_one_row(const Node& node, int max_rows);

constexpr int vector_rows = 8;  // input rows that the matrix-vector shaders take

inline uint32_t divide_up(int64_t a, int64_t b) {
    return static_cast<uint32_t>((a + b - 1) / b);
}

}  // namespace vulkan
}  // namespace quant
