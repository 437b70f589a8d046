# The Vulkan backend: SPIR-V compiled with glslc and embedded; libvulkan is opened at run time, never linked.
# As a script (cmake -DSPIRV=... -DNAME=... -DOUT=... -P vulkan.cmake) it turns SPIR-V into a C array.
if(CMAKE_SCRIPT_MODE_FILE)
  file(READ ${SPIRV} bytes HEX)
  string(REGEX REPLACE "(..)(..)(..)(..)" "0x\\4\\3\\2\\1," words "${bytes}")
  string(REGEX REPLACE "((0x........,)(0x........,)(0x........,)(0x........,)(0x........,)(0x........,)(0x........,)(0x........,))" "\\1\n" words
         "${words}")
  file(WRITE ${OUT} "const uint32_t ${NAME}[] = {\n${words}};\n")
  return()
endif()

set(QUANT_VULKAN AUTO CACHE STRING "Build the Vulkan backend: AUTO (if its headers and glslc are found), ON, OFF")
set_property(CACHE QUANT_VULKAN PROPERTY STRINGS AUTO ON OFF)
set(QUANT_VULKAN_SOURCES "")
if(QUANT_VULKAN)  # AUTO is true, too
  find_path(QUANT_VULKAN_HEADERS vulkan/vulkan_core.h HINTS $ENV{VULKAN_SDK}/include)
  find_program(QUANT_GLSLC glslc HINTS $ENV{VULKAN_SDK}/bin)
  if(NOT QUANT_VULKAN_HEADERS OR NOT QUANT_GLSLC)
    if(NOT QUANT_VULKAN STREQUAL "AUTO")
      message(FATAL_ERROR "QUANT_VULKAN=ON needs the Vulkan headers (Debian: libvulkan-dev) and glslc (glslc)")
    endif()
    message(STATUS "Vulkan headers or glslc not found (Debian: libvulkan-dev glslc): no Vulkan backend")
  else()
    file(GLOB QUANT_VULKAN_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/backends/vulkan/*.cpp)
    file(GLOB QUANT_VULKAN_INCLUDES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/backends/vulkan/shaders/*.glsl)
    set(QUANT_VULKAN_GENERATED ${PROJECT_BINARY_DIR}/vulkan)
    file(MAKE_DIRECTORY ${QUANT_VULKAN_GENERATED}/vulkan_shaders)
    set(QUANT_VULKAN_ARRAYS "")
    function(quant_shader source name)  # further arguments: for glslc
      set(from ${PROJECT_SOURCE_DIR}/backends/vulkan/shaders/${source}.comp)
      set(spirv ${QUANT_VULKAN_GENERATED}/${name}.spv)
      set(array ${QUANT_VULKAN_GENERATED}/vulkan_shaders/${name}.inc)
      add_custom_command(
        OUTPUT ${array}
        COMMAND ${QUANT_GLSLC} --target-env=vulkan1.2 -O ${ARGN} ${from} -o ${spirv}
        COMMAND ${CMAKE_COMMAND} -DSPIRV=${spirv} -DNAME=${name} -DOUT=${array} -P
                ${PROJECT_SOURCE_DIR}/cmake/vulkan.cmake
        DEPENDS ${from} ${QUANT_VULKAN_INCLUDES} ${PROJECT_SOURCE_DIR}/cmake/vulkan.cmake
        COMMENT "Shader ${name}"
        VERBATIM)
      set(QUANT_VULKAN_ARRAYS ${QUANT_VULKAN_ARRAYS} ${array} PARENT_SCOPE)
    endfunction()
    foreach(shader embed rowwise rows rope attention attention_combine attention_cooperative attention_row cache_quantize matvec matvec_row matmul matvec_integer matmul_integer
            arrange expand matmul_cooperative probe_read)
      quant_shader(${shader} ${shader})
    endforeach()
    foreach(shader matvec_row matvec_integer matmul_integer)
      quant_shader(${shader} ${shader}_dot -DINTEGER_DOT)
    endforeach()
    quant_shader(matmul_cooperative matmul_cooperative_integer -DINTEGER_MATRICES)
  endif()
endif()
