# What `make install` lays down, below any prefix and relocatable: no installed file names the
# prefix; tools find the library by $ORIGIN and the presets beside themselves.
include(CMakePackageConfigHelpers)

file(RELATIVE_PATH lib_from_bin "/${CMAKE_INSTALL_BINDIR}" "/${CMAKE_INSTALL_LIBDIR}")
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/SwitchTransformers)
set(templates ${CMAKE_CURRENT_LIST_DIR})

install(TARGETS switch EXPORT SwitchTransformersTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY libswitch/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/libswitch
        FILES_MATCHING PATTERN "*.h"
        PATTERN cpu EXCLUDE PATTERN cuda EXCLUDE PATTERN none EXCLUDE)
if(SW_TOOLS)
  set_target_properties(${SW_TOOLS} PROPERTIES INSTALL_RPATH "$ORIGIN/${lib_from_bin}")
  install(TARGETS ${SW_TOOLS} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

if(EXISTS ${PROJECT_SOURCE_DIR}/data/presets)
  install(DIRECTORY data/presets/ DESTINATION ${CMAKE_INSTALL_DATADIR}/switch/presets
          FILES_MATCHING PATTERN "*.toml")
endif()
file(GLOB format_pages CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/libswitch/*/*.5)
if(format_pages)
  install(FILES ${format_pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man5)
endif()

# CMake package and pkg-config file.
install(EXPORT SwitchTransformersTargets NAMESPACE SwitchTransformers:: DESTINATION ${package_dir})
configure_package_config_file(${templates}/SwitchTransformersConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/SwitchTransformersConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/SwitchTransformersConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/SwitchTransformersConfig.cmake
              ${PROJECT_BINARY_DIR}/SwitchTransformersConfigVersion.cmake
        DESTINATION ${package_dir})
file(RELATIVE_PATH prefix_from_pc "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" prefix_from_pc "${prefix_from_pc}")
configure_file(${templates}/switch-transformers.pc.in switch-transformers.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/switch-transformers.pc
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# Man pages and completions come from the tools' own option table, at install time.
if(SW_TOOLS)
  string(REPLACE ";" " " tools "${SW_TOOLS}")
  configure_file(${templates}/tool_docs.cmake.in tool_docs.cmake @ONLY)
  install(SCRIPT ${PROJECT_BINARY_DIR}/tool_docs.cmake)
endif()
