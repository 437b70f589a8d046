// The Vulkan loader, opened at run time: nothing links against it, and a machine without one still runs everything
// else.
#pragma once
#include <memory>
#include <string>

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h>

namespace quant {
namespace vulkan {

#define QUANT_VULKAN_INSTANCE_FUNCTIONS(X)      \
    X(vkDestroyInstance)                        \
    X(vkEnumeratePhysicalDevices)               \
    X(vkEnumerateDeviceExtensionProperties)     \
    X(vkGetPhysicalDeviceProperties)            \
    X(vkGetPhysicalDeviceProperties2)           \
    X(vkGetPhysicalDeviceFeatures2)             \
    X(vkGetPhysicalDeviceMemoryProperties)      \
    X(vkGetPhysicalDeviceQueueFamilyProperties) \
    X(vkCreateDevice)                           \
    X(vkGetDeviceProcAddr)

#define QUANT_VULKAN_DEVICE_FUNCTIONS(X) \
    X(vkDestroyDevice)                   \
    X(vkGetDeviceQueue)                  \
    X(vkCreateBuffer)                    \
    X(vkDestroyBuffer)                   \
    X(vkGetBufferMemoryRequirements)     \
    X(vkGetBufferDeviceAddress)          \
    X(vkAllocateMemory)                  \
    X(vkFreeMemory)                      \
    X(vkBindBufferMemory)                \
    X(vkMapMemory)                       \
    X(vkCreateCommandPool)               \
    X(vkDestroyCommandPool)              \
    X(vkAllocateCommandBuffers)          \
    X(vkFreeCommandBuffers)              \
    X(vkBeginCommandBuffer)              \
    X(vkEndCommandBuffer)                \
    X(vkCmdBindPipeline)                 \
    X(vkCmdPushConstants)                \
    X(vkCmdDispatch)                     \
    X(vkCmdDispatchIndirect)             \
    X(vkCmdPipelineBarrier)              \
    X(vkCmdCopyBuffer)                   \
    X(vkCreateSemaphore)                 \
    X(vkDestroySemaphore)                \
    X(vkWaitSemaphores)                  \
    X(vkGetSemaphoreCounterValue)        \
    X(vkQueueSubmit)                     \
    X(vkDeviceWaitIdle)                  \
    X(vkCreateShaderModule)              \
    X(vkDestroyShaderModule)             \
    X(vkCreatePipelineLayout)            \
    X(vkDestroyPipelineLayout)           \
    X(vkCreateComputePipelines)          \
    X(vkDestroyPipeline)

struct CooperativeMatrixProperties;  // cooperative_matrix.h
using GetCooperativeMatrixProperties = VkResult(VKAPI_PTR*)(VkPhysicalDevice, uint32_t*, CooperativeMatrixProperties*);

#define QUANT_VULKAN_DECLARE(name) PFN_##name name = nullptr;

// The loader's library and one instance of it.
class Instance {
  public:
    // Null with *reason if this machine has no loader, or none of Vulkan 1.2.
    static std::shared_ptr<Instance> open(std::string* reason);
    ~Instance();
    Instance(const Instance&) = delete;
    Instance& operator=(const Instance&) = delete;

    VkInstance handle = VK_NULL_HANDLE;
    QUANT_VULKAN_INSTANCE_FUNCTIONS(QUANT_VULKAN_DECLARE)
    GetCooperativeMatrixProperties cooperative_matrix_properties = nullptr;  // of an extension: may be missing

  private:
    Instance() = default;
    void* library_ = nullptr;
};

struct DeviceFunctions {
    // Throws Error(DEVICE) naming a function that the driver lacks.
    void load(const Instance& instance, VkDevice device);
    QUANT_VULKAN_DEVICE_FUNCTIONS(QUANT_VULKAN_DECLARE)
};

const char* result_text(VkResult result);

}  // namespace vulkan
}  // namespace quant
