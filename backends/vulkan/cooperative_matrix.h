// Cooperative matrices. glslc accepts VK_KHR_cooperative_matrix in its newest versions only, so the shaders are written
// with its predecessor, GL_NV_cooperative_matrix, and their SPIR-V is rewritten here: the same six instructions under
// other numbers, with the use of every type said. That is taken from the products, so left factors, right factors and
// sums must have types of their own: their sizes come from three specialization constants.
#pragma once
#include <cstdint>
#include <vector>

#include "backends/vulkan/api.h"

namespace quant {
namespace vulkan {

// The headers of 2022 do not have the extension.
constexpr const char* cooperative_matrix_extension = "VK_KHR_cooperative_matrix";
struct CooperativeMatrixFeatures {  // VkPhysicalDeviceCooperativeMatrixFeaturesKHR
    VkStructureType sType = static_cast<VkStructureType>(1000506000);
    void* pNext = nullptr;
    VkBool32 cooperativeMatrix = VK_FALSE, cooperativeMatrixRobustBufferAccess = VK_FALSE;
};
struct CooperativeMatrixProperties {  // VkCooperativeMatrixPropertiesKHR
    VkStructureType sType = static_cast<VkStructureType>(1000506001);
    void* pNext = nullptr;
    uint32_t MSize = 0, NSize = 0, KSize = 0;
    uint32_t AType = 0, BType = 0, CType = 0, ResultType = 0;
    VkBool32 saturatingAccumulation = VK_FALSE;
    uint32_t scope = 0;
};
enum class ComponentType : uint32_t { f16 = 0, f32 = 1, s8 = 3, s32 = 5 };
constexpr uint32_t subgroup_scope = 3;

// SPIR-V without instructions of the NV extension comes back as it is.
std::vector<uint32_t> with_khr_matrices(const uint32_t* words, size_t count);

}  // namespace vulkan
}  // namespace quant
