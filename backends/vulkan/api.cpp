#include "backends/vulkan/api.h"

#include "formats/error.h"

#if defined(_WIN32)
#define NOMINMAX
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace quant {
namespace vulkan {
namespace {

#if defined(_WIN32)
const char* const library_names[] = {"vulkan-1.dll"};
void* open_library(const char* name) {
    return LoadLibraryA(name);
}
void close_library(void* library) {
    FreeLibrary(static_cast<HMODULE>(library));
}
PFN_vkVoidFunction symbol(void* library, const char* name) {
    return reinterpret_cast<PFN_vkVoidFunction>(GetProcAddress(static_cast<HMODULE>(library), name));
}
#else
#if defined(__APPLE__)
const char* const library_names[] = {"libvulkan.1.dylib", "libvulkan.dylib", "libMoltenVK.dylib"};
#else
const char* const library_names[] = {"libvulkan.so.1", "libvulkan.so"};
#endif
void* open_library(const char* name) {
    return dlopen(name, RTLD_NOW | RTLD_LOCAL);
}
void close_library(void* library) {
    dlclose(library);
}
PFN_vkVoidFunction symbol(void* library, const char* name) {
    return reinterpret_cast<PFN_vkVoidFunction>(dlsym(library, name));
}
#endif

}  // namespace

std::shared_ptr<Instance> Instance::open(std::string* reason) {
    std::shared_ptr<Instance> instance(new Instance);
    for (const char* name : library_names)
        if (!instance->library_) instance->library_ = open_library(name);
    if (!instance->library_) {
        *reason = std::string("this machine has no Vulkan loader (") + library_names[0] + ")";
        return nullptr;
    }
    auto get = reinterpret_cast<PFN_vkGetInstanceProcAddr>(symbol(instance->library_, "vkGetInstanceProcAddr"));
    auto create = get ? reinterpret_cast<PFN_vkCreateInstance>(get(nullptr, "vkCreateInstance")) : nullptr;
    auto version =
        get ? reinterpret_cast<PFN_vkEnumerateInstanceVersion>(get(nullptr, "vkEnumerateInstanceVersion")) : nullptr;
    uint32_t api = 0;
    if (!create || !version || version(&api) != VK_SUCCESS || api < VK_API_VERSION_1_2) {
        *reason = "this machine's Vulkan loader is older than Vulkan 1.2";
        return nullptr;
    }
    VkApplicationInfo application{};
    application.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
    application.pApplicationName = "quant";
    application.apiVersion = VK_API_VERSION_1_2;
    VkInstanceCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
    info.pApplicationInfo = &application;
    const VkResult result = create(&info, nullptr, &instance->handle);
    if (result != VK_SUCCESS) {
        instance->handle = VK_NULL_HANDLE;
        *reason = std::string("Vulkan does not start: ") + result_text(result);
        return nullptr;
    }
    bool complete = true;
#define QUANT_VULKAN_LOAD(name)                                                  \
    instance->name = reinterpret_cast<PFN_##name>(get(instance->handle, #name)); \
    complete = complete && instance->name;
    QUANT_VULKAN_INSTANCE_FUNCTIONS(QUANT_VULKAN_LOAD)
#undef QUANT_VULKAN_LOAD
    instance->cooperative_matrix_properties = reinterpret_cast<GetCooperativeMatrixProperties>(
        get(instance->handle, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR"));
    if (!complete) {
        *reason = "this machine's Vulkan loader lacks functions of Vulkan 1.2";
        return nullptr;
    }
    return instance;
}

Instance::~Instance() {
    if (handle && vkDestroyInstance) vkDestroyInstance(handle, nullptr);
    if (library_) close_library(library_);
}

void DeviceFunctions::load(const Instance& instance, VkDevice device) {
#define QUANT_VULKAN_LOAD(name)                                                       \
    name = reinterpret_cast<PFN_##name>(instance.vkGetDeviceProcAddr(device, #name)); \
    if (!name) fail(QUANT_ERR_DEVICE, "the Vulkan driver lacks " #name);
    QUANT_VULKAN_DEVICE_FUNCTIONS(QUANT_VULKAN_LOAD)
#undef QUANT_VULKAN_LOAD
}

const char* result_text(VkResult result) {
    switch (result) {
        case VK_ERROR_OUT_OF_HOST_MEMORY:
            return "out of host memory";
        case VK_ERROR_OUT_OF_DEVICE_MEMORY:
            return "out of device memory";
        case VK_ERROR_INITIALIZATION_FAILED:
            return "initialization failed";
        case VK_ERROR_DEVICE_LOST:
            return "the device was lost";
        case VK_ERROR_LAYER_NOT_PRESENT:
            return "a layer is missing";
        case VK_ERROR_EXTENSION_NOT_PRESENT:
            return "an extension is missing";
        case VK_ERROR_FEATURE_NOT_PRESENT:
            return "a feature is missing";
        case VK_ERROR_INCOMPATIBLE_DRIVER:
            return "no driver was found";
        case VK_ERROR_TOO_MANY_OBJECTS:
            return "too many objects";
        case VK_ERROR_INVALID_SHADER_NV:
            return "the shader does not compile";
        default:
            return "unknown failure of the driver";
    }
}

}  // namespace vulkan
}  // namespace quant
