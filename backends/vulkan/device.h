// What a Vulkan device can do, and the device opened: queue, memory, pipelines.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backends/vulkan/api.h"
#include "backends/vulkan/shaders.h"

namespace quant {
namespace vulkan {

// Smaller limits than the device's own, for tests; 0 and automatic: the device's.
struct Limits {
    uint64_t allocation_bytes = 0;  // of one allocation
    uint64_t memory_bytes = 0;      // of all
    enum class Use { automatic, always, never };
    Use integer_dot = Use::automatic;  // automatic: where it is accelerated; always: where it exists
    bool matrices = true;              // cooperative ones, where they exist
};

// The sizes of cooperative matrices, m x k times k x n; 0: there are none.
struct MatrixShape {
    uint32_t m = 0, n = 0, k = 0;
    bool operator==(const MatrixShape& o) const { return m == o.m && n == o.n && k == o.k; }
};

struct PhysicalDevice {
    std::string name, description;
    std::string reason;  // why not usable, or empty
    uint64_t memory_bytes = 0;
    VkPhysicalDevice handle = VK_NULL_HANDLE;
    uint8_t uuid[VK_UUID_SIZE] = {};
    uint32_t queue_family = 0, subgroup_size = 0;
    uint32_t workgroup_threads = 0;  // that a workgroup with much to wait for should have
    uint64_t allocation_bytes = 0;
    bool discrete = false;  // has memory of its own that the host does not share
    bool is_cpu = false;
    bool shuffles = false;  // values between the invocations of a subgroup
    bool integer_dot = false, integer_dot_accelerated = false, integer_dot_used = false;
    MatrixShape float_matrices;    // f16 x f16 -> f32
    MatrixShape integer_matrices;  // int8 x int8 -> int32
    bool has_matrices() const { return float_matrices.m || integer_matrices.m; }
};
// In the loader's order; a device listed twice appears once.
std::vector<PhysicalDevice> physical_devices(const Instance& instance);
void name_devices(std::vector<PhysicalDevice>& devices);  // vulkan:0, ...; drops those with the UUID of an earlier one

// What a pipeline is made from: a shader and its specialization constants 0, 1, 2, ...
struct PipelineKey {
    Shader shader;
    std::vector<uint32_t> constants;
    bool operator<(const PipelineKey& other) const {
        return shader != other.shader ? shader < other.shader : constants < other.constants;
    }
};

class Device {
  public:
    Device(std::shared_ptr<Instance> instance, const PhysicalDevice& physical);
    ~Device();
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    // Throws Error for anything but success.
    void check(VkResult result, const char* what) const;
    VkPipeline pipeline(const PipelineKey& key);  // made once; Error(DEVICE) if the driver does not compile it
    // The first type of `bits` with all of `wanted`, preferring those that also have `preferred`; -1 if there is none.
    int memory_type(uint32_t bits, VkMemoryPropertyFlags wanted, VkMemoryPropertyFlags preferred) const;

    DeviceFunctions vk;
    const PhysicalDevice physical;
    VkDevice handle = VK_NULL_HANDLE;
    VkQueue queue = VK_NULL_HANDLE;
    VkPipelineLayout layout = VK_NULL_HANDLE;

  private:
    std::shared_ptr<Instance> instance_;
    VkPhysicalDeviceMemoryProperties memory_{};
    std::map<PipelineKey, VkPipeline> pipelines_;
};

constexpr uint32_t push_constant_bytes = 128;

}  // namespace vulkan
}  // namespace quant
