#include "backends/vulkan/device.h"

#include <algorithm>
#include <cstring>

#include "backends/vulkan/cooperative_matrix.h"
#include "formats/error.h"

namespace quant {
namespace vulkan {
namespace {

constexpr uint32_t workgroup_threads = 256, shared_bytes = 32768;      // what the shaders need
constexpr uint32_t matrix_threads = 512, matrix_shared_bytes = 49152;  // what those with cooperative matrices need

std::vector<std::string> extensions_of(const Instance& instance, VkPhysicalDevice device) {
    uint32_t n = 0;
    std::vector<std::string> names;
    if (instance.vkEnumerateDeviceExtensionProperties(device, nullptr, &n, nullptr) != VK_SUCCESS) return names;
    std::vector<VkExtensionProperties> list(n);
    if (instance.vkEnumerateDeviceExtensionProperties(device, nullptr, &n, list.data()) != VK_SUCCESS) return names;
    for (uint32_t i = 0; i < n; ++i) names.push_back(list[i].extensionName);
    return names;
}

bool contains(const std::vector<std::string>& names, const char* name) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

// Features and properties that are asked for in one chain each.
struct Queried {
    VkPhysicalDeviceFeatures2 features{};
    VkPhysicalDeviceVulkan12Features vulkan12{};
    VkPhysicalDeviceShaderIntegerDotProductFeaturesKHR dot{};
    VkPhysicalDeviceProperties2 properties{};
    VkPhysicalDeviceIDProperties id{};
    VkPhysicalDeviceSubgroupProperties subgroup{};
    VkPhysicalDeviceMaintenance3Properties maintenance3{};
    VkPhysicalDeviceShaderIntegerDotProductPropertiesKHR dot_properties{};
    CooperativeMatrixFeatures matrices;
    VkPhysicalDeviceSubgroupSizeControlPropertiesEXT subgroup_sizes{};

    Queried(const Instance& instance, VkPhysicalDevice device, bool has_dot, bool has_matrices) {
        features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
        vulkan12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
        dot.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES_KHR;
        features.pNext = &vulkan12;
        void** last = &vulkan12.pNext;
        auto add = [&](auto& more) {
            *last = &more;
            last = &more.pNext;
        };
        if (has_dot) add(dot);
        if (has_matrices) add(matrices);
        instance.vkGetPhysicalDeviceFeatures2(device, &features);

        properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
        id.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES;
        subgroup.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES;
        maintenance3.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES;
        dot_properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES_KHR;
        subgroup_sizes.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES_EXT;
        properties.pNext = &id;
        last = &id.pNext;
        add(subgroup);
        add(maintenance3);
        if (has_dot) add(dot_properties);
        if (has_matrices) add(subgroup_sizes);
        instance.vkGetPhysicalDeviceProperties2(device, &properties);
    }
};

std::string gibibytes(uint64_t bytes) {
    return std::to_string((bytes + (1u << 29)) >> 30) + " GiB";
}

// The first thing that the backend needs and the device lacks, or empty.
std::string lacking(const PhysicalDevice& device, const Queried& q, bool has_queue) {
    const VkPhysicalDeviceLimits& limits = q.properties.properties.limits;
    const VkSubgroupFeatureFlags arithmetic = VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_ARITHMETIC_BIT;
    if (!has_queue) return "it has no compute queue";
    if (!q.vulkan12.bufferDeviceAddress) return "it has no buffer device addresses";
    if (!q.vulkan12.timelineSemaphore) return "it has no timeline semaphores";
    if ((q.subgroup.supportedOperations & arithmetic) != arithmetic ||
        !(q.subgroup.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT))
        return "it has no subgroup arithmetic";
    if (limits.maxComputeWorkGroupInvocations < workgroup_threads ||
        limits.maxComputeWorkGroupSize[0] < workgroup_threads)
        return "its workgroups are smaller than 256";
    if (limits.maxComputeSharedMemorySize < shared_bytes) return "it has less than 32 KiB of shared memory";
    if (device.memory_bytes == 0) return "it has no memory of its own";
    return "";
}

// The shape with these components that is `wanted`, or none.
MatrixShape matrix_shape(const std::vector<CooperativeMatrixProperties>& list, ComponentType factors,
                         ComponentType sums, MatrixShape wanted) {
    auto is = [](uint32_t type, ComponentType component) { return type == static_cast<uint32_t>(component); };
    for (const CooperativeMatrixProperties& p : list)
        if (p.scope == subgroup_scope && is(p.AType, factors) && is(p.BType, factors) && is(p.CType, sums) &&
            is(p.ResultType, sums) && !p.saturatingAccumulation && MatrixShape{p.MSize, p.NSize, p.KSize} == wanted)
            return wanted;
    return {};
}

void find_matrices(const Instance& instance, const Queried& q, PhysicalDevice& device) {
    const bool fixed = q.subgroup_sizes.minSubgroupSize == q.subgroup_sizes.maxSubgroupSize;
    if (!q.matrices.cooperativeMatrix || !q.vulkan12.vulkanMemoryModel || !fixed || device.subgroup_size != 32 ||
        !device.shuffles || device.workgroup_threads < matrix_threads ||
        q.properties.properties.limits.maxComputeSharedMemorySize < matrix_shared_bytes ||
        !instance.cooperative_matrix_properties)
        return;
    uint32_t n = 0;
    if (instance.cooperative_matrix_properties(device.handle, &n, nullptr) != VK_SUCCESS) return;
    std::vector<CooperativeMatrixProperties> list(n);
    if (instance.cooperative_matrix_properties(device.handle, &n, list.data()) != VK_SUCCESS) return;
    if (q.vulkan12.shaderFloat16)
        device.float_matrices = matrix_shape(list, ComponentType::f16, ComponentType::f32, {16, 16, 16});
    for (const MatrixShape& wanted : {MatrixShape{16, 16, 32}, MatrixShape{16, 16, 16}})
        if (q.vulkan12.shaderInt8 && !device.integer_matrices.m)
            device.integer_matrices = matrix_shape(list, ComponentType::s8, ComponentType::s32, wanted);
}

PhysicalDevice describe(const Instance& instance, VkPhysicalDevice handle) {
    PhysicalDevice device;
    device.handle = handle;
    VkPhysicalDeviceProperties properties;
    instance.vkGetPhysicalDeviceProperties(handle, &properties);
    device.description = properties.deviceName;
    if (properties.apiVersion < VK_API_VERSION_1_2) {
        device.reason = "its driver is older than Vulkan 1.2";
        return device;
    }
    const std::vector<std::string> extensions = extensions_of(instance, handle);
    const bool has_dot = contains(extensions, VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME);
    const bool has_matrices = contains(extensions, cooperative_matrix_extension) &&
                              contains(extensions, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
    const Queried q(instance, handle, has_dot, has_matrices);

    std::memcpy(device.uuid, q.id.deviceUUID, sizeof device.uuid);
    device.subgroup_size = q.subgroup.subgroupSize;
    device.allocation_bytes = q.maintenance3.maxMemoryAllocationSize;
    const VkPhysicalDeviceLimits& limits = properties.limits;
    device.workgroup_threads =
        std::min({1024u, limits.maxComputeWorkGroupInvocations, limits.maxComputeWorkGroupSize[0]});
    device.is_cpu = properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    if (device.is_cpu) device.workgroup_threads = std::min(device.workgroup_threads, workgroup_threads);
    device.discrete = !device.is_cpu && properties.deviceType != VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU;
    device.shuffles = q.subgroup.supportedOperations & VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
    device.integer_dot = has_dot && q.dot.shaderIntegerDotProduct;
    device.integer_dot_accelerated =
        device.integer_dot && q.dot_properties.integerDotProduct4x8BitPackedSignedAccelerated;

    find_matrices(instance, q, device);

    VkPhysicalDeviceMemoryProperties memory;
    instance.vkGetPhysicalDeviceMemoryProperties(handle, &memory);
    for (uint32_t i = 0; i < memory.memoryHeapCount; ++i)
        if (memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
            device.memory_bytes = std::max<uint64_t>(device.memory_bytes, memory.memoryHeaps[i].size);
    uint32_t n = 0;
    instance.vkGetPhysicalDeviceQueueFamilyProperties(handle, &n, nullptr);
    std::vector<VkQueueFamilyProperties> queues(n);
    instance.vkGetPhysicalDeviceQueueFamilyProperties(handle, &n, queues.data());
    bool has_queue = false;
    for (uint32_t i = 0; i < n && !has_queue; ++i)
        if (queues[i].queueFlags & VK_QUEUE_COMPUTE_BIT) {
            device.queue_family = i;
            has_queue = true;
        }
    device.reason = lacking(device, q, has_queue);

    // The public API has room for 95 characters: what matters most comes first.
    device.description += ", " + gibibytes(device.memory_bytes) + (device.discrete ? "" : " shared with the host");
    if (device.float_matrices.m) device.description += ", f16 matrices";
    if (device.integer_matrices.m) device.description += ", int8 matrices";
    if (device.integer_dot)
        device.description += device.integer_dot_accelerated ? ", integer dot product" : ", slow integer dot product";
    device.description += ", Vulkan " + std::to_string(VK_API_VERSION_MAJOR(properties.apiVersion)) + "." +
                          std::to_string(VK_API_VERSION_MINOR(properties.apiVersion)) + ", subgroups of " +
                          std::to_string(device.subgroup_size);
    return device;
}

}  // namespace

std::vector<PhysicalDevice> physical_devices(const Instance& instance) {
    uint32_t n = 0;
    if (instance.vkEnumeratePhysicalDevices(instance.handle, &n, nullptr) != VK_SUCCESS) return {};
    std::vector<VkPhysicalDevice> handles(n);
    if (instance.vkEnumeratePhysicalDevices(instance.handle, &n, handles.data()) < 0) return {};
    handles.resize(n);
    std::vector<PhysicalDevice> devices;
    for (VkPhysicalDevice handle : handles) devices.push_back(describe(instance, handle));
    name_devices(devices);
    return devices;
}

void name_devices(std::vector<PhysicalDevice>& devices) {
    std::vector<PhysicalDevice> once;
    for (PhysicalDevice& device : devices) {
        const uint8_t none[VK_UUID_SIZE] = {};
        auto same = [&](const PhysicalDevice& d) { return std::memcmp(d.uuid, device.uuid, sizeof none) == 0; };
        const bool known = std::memcmp(device.uuid, none, sizeof none) != 0;
        if (known && std::any_of(once.begin(), once.end(), same)) continue;
        device.name = "vulkan:" + std::to_string(once.size());
        once.push_back(std::move(device));
    }
    devices = std::move(once);
}

Device::Device(std::shared_ptr<Instance> instance, const PhysicalDevice& physical)
    : physical(physical), instance_(std::move(instance)) {
    instance_->vkGetPhysicalDeviceMemoryProperties(physical.handle, &memory_);
    const float priority = 1;
    VkDeviceQueueCreateInfo queue_info{};
    queue_info.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
    queue_info.queueFamilyIndex = physical.queue_family;
    queue_info.queueCount = 1;
    queue_info.pQueuePriorities = &priority;

    VkPhysicalDeviceVulkan12Features vulkan12{};
    vulkan12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    vulkan12.bufferDeviceAddress = VK_TRUE;
    vulkan12.timelineSemaphore = VK_TRUE;
    VkPhysicalDeviceShaderIntegerDotProductFeaturesKHR dot{};
    dot.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES_KHR;
    dot.shaderIntegerDotProduct = VK_TRUE;
    std::vector<const char*> extensions;
    if (physical.integer_dot) {
        extensions.push_back(VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME);
        dot.pNext = vulkan12.pNext;
        vulkan12.pNext = &dot;
    }
    CooperativeMatrixFeatures matrices;
    matrices.cooperativeMatrix = VK_TRUE;
    if (physical.has_matrices()) {
        extensions.push_back(cooperative_matrix_extension);
        vulkan12.vulkanMemoryModel = VK_TRUE;
        vulkan12.shaderFloat16 = physical.float_matrices.m != 0;
        vulkan12.shaderInt8 = physical.integer_matrices.m != 0;
        matrices.pNext = vulkan12.pNext;
        vulkan12.pNext = &matrices;
    }
    VkDeviceCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
    info.pNext = &vulkan12;
    info.queueCreateInfoCount = 1;
    info.pQueueCreateInfos = &queue_info;
    info.enabledExtensionCount = static_cast<uint32_t>(extensions.size());
    info.ppEnabledExtensionNames = extensions.data();
    check(instance_->vkCreateDevice(physical.handle, &info, nullptr, &handle), "opening the device");
    try {
        vk.load(*instance_, handle);
        vk.vkGetDeviceQueue(handle, physical.queue_family, 0, &queue);
        VkPushConstantRange range{VK_SHADER_STAGE_COMPUTE_BIT, 0, push_constant_bytes};
        VkPipelineLayoutCreateInfo layout_info{};
        layout_info.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO;
        layout_info.pushConstantRangeCount = 1;
        layout_info.pPushConstantRanges = &range;
        check(vk.vkCreatePipelineLayout(handle, &layout_info, nullptr, &layout), "a pipeline layout");
    } catch (...) {
        if (vk.vkDestroyDevice) vk.vkDestroyDevice(handle, nullptr);
        throw;
    }
}

Device::~Device() {
    vk.vkDeviceWaitIdle(handle);
    for (const auto& [key, pipeline] : pipelines_) vk.vkDestroyPipeline(handle, pipeline, nullptr);
    vk.vkDestroyPipelineLayout(handle, layout, nullptr);
    vk.vkDestroyDevice(handle, nullptr);
}

void Device::check(VkResult result, const char* what) const {
    if (result >= 0) return;
    const bool memory = result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_OUT_OF_HOST_MEMORY;
    fail(memory ? QUANT_ERR_MEMORY : QUANT_ERR_DEVICE, physical.name + ": " + what + ": " + result_text(result));
}

VkPipeline Device::pipeline(const PipelineKey& key) {
    auto found = pipelines_.find(key);
    if (found != pipelines_.end()) return found->second;
    const SpirV code = spirv(key.shader);
    const std::vector<uint32_t> words = with_khr_matrices(code.words, code.bytes / 4);
    VkShaderModuleCreateInfo module_info{};
    module_info.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO;
    module_info.codeSize = 4 * words.size();
    module_info.pCode = words.data();
    VkShaderModule module = VK_NULL_HANDLE;
    check(vk.vkCreateShaderModule(handle, &module_info, nullptr, &module), code.name);

    std::vector<VkSpecializationMapEntry> entries;
    for (uint32_t i = 0; i < key.constants.size(); ++i) entries.push_back({i, 4 * i, 4});
    VkSpecializationInfo special{};
    special.mapEntryCount = static_cast<uint32_t>(entries.size());
    special.pMapEntries = entries.data();
    special.dataSize = 4 * entries.size();
    special.pData = key.constants.data();
    VkComputePipelineCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO;
    info.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
    info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
    info.stage.module = module;
    info.stage.pName = "main";
    info.stage.pSpecializationInfo = &special;
    info.layout = layout;
    VkPipeline pipeline = VK_NULL_HANDLE;
    const VkResult result = vk.vkCreateComputePipelines(handle, VK_NULL_HANDLE, 1, &info, nullptr, &pipeline);
    vk.vkDestroyShaderModule(handle, module, nullptr);
    check(result, (std::string("the driver does not compile the shader ") + code.name).c_str());
    try {
        pipelines_.emplace(key, pipeline);
    } catch (...) {
        vk.vkDestroyPipeline(handle, pipeline, nullptr);
        throw;
    }
    return pipeline;
}

int Device::memory_type(uint32_t bits, VkMemoryPropertyFlags wanted, VkMemoryPropertyFlags preferred) const {
    int found = -1;
    for (uint32_t i = 0; i < memory_.memoryTypeCount; ++i) {
        const VkMemoryPropertyFlags flags = memory_.memoryTypes[i].propertyFlags;
        if (!(bits >> i & 1) || (flags & wanted) != wanted) continue;
        if ((flags & preferred) == preferred) return static_cast<int>(i);
        if (found < 0) found = static_cast<int>(i);
    }
    return found;
}

}  // namespace vulkan
}  // namespace quant
