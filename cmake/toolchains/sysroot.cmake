# Another distribution: -DQUANT_SYSROOT is a copy of the target's file system (its /lib, /usr/lib and /usr/include),
# -DQUANT_TRIPLE the compiler's prefix.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES QUANT_SYSROOT QUANT_TRIPLE)
if(NOT QUANT_TRIPLE)
  set(QUANT_TRIPLE aarch64-linux-gnu)
endif()
if(NOT IS_DIRECTORY "${QUANT_SYSROOT}/usr/include")
  message(FATAL_ERROR "-DQUANT_SYSROOT must name a copy of the target's file system: \"${QUANT_SYSROOT}/usr/include\" "
                      "is not there")
endif()
string(REGEX MATCH "^[^-]+" CMAKE_SYSTEM_PROCESSOR ${QUANT_TRIPLE})
set(CMAKE_SYSROOT ${QUANT_SYSROOT})
set(CMAKE_FIND_ROOT_PATH ${QUANT_SYSROOT})
include(${CMAKE_CURRENT_LIST_DIR}/linux_cross.cmake)
