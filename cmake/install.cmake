# cmake --install: quant.h, the library, find_package(quant), pkg-config and the quant command.
include(CMakePackageConfigHelpers)
set(QUANT_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/quant)

install(TARGETS quant EXPORT quantTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES quant.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT quantTargets NAMESPACE quant:: DESTINATION ${QUANT_PACKAGE_DIR})
if(TARGET quant_cli)
  install(TARGETS quant_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

set(QUANT_CXX_RUNTIME "-lstdc++")  # what a program that is linked as C needs
if(APPLE OR CMAKE_CXX_FLAGS MATCHES "-stdlib=libc\\+\\+")
  set(QUANT_CXX_RUNTIME "-lc++")
endif()
configure_package_config_file(cmake/quantConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/quantConfig.cmake
                              INSTALL_DESTINATION ${QUANT_PACKAGE_DIR})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/quantConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/quantConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/quantConfigVersion.cmake
        DESTINATION ${QUANT_PACKAGE_DIR})

file(RELATIVE_PATH QUANT_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)

set(QUANT_PC_LIBS_PRIVATE "")
set(QUANT_PC_CFLAGS "")
if(BUILD_SHARED_LIBS)
  set(QUANT_PC_CFLAGS "-DQUANT_SHARED")
else()
  set(QUANT_PC_LIBS_PRIVATE "${QUANT_CXX_RUNTIME} -lm -pthread")
endif()
configure_file(cmake/quant.pc.in ${CMAKE_CURRENT_BINARY_DIR}/quant.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/quant.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
