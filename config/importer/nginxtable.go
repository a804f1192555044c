package importer

import "strings"

// known is what becomes of a directive that is not carried over.
type known struct {
	weight Weight // -1: turngate does the same by itself
	why    string
	fix    string
}

// nginxTable holds the directives that stand in most files and have no meaning of
// their own for turngate.
var nginxTable = func() map[string]known {
	m := map[string]known{}
	put := func(w Weight, why, fix, names string) {
		for _, n := range strings.Fields(names) {
			m[n] = known{w, why, fix}
		}
	}
	const native = Weight(-1)
	put(native, "", "", `ssl proxy_http_version proxy_ssl_session_reuse proxy_pass_request_headers proxy_pass_request_body
		proxy_ssl_verify proxy_ssl_verify_depth server_tokens http2 http3 tcp_nodelay tcp_nopush sendfile proxy_redirect proxy_cache_bypass proxy_no_cache
		default_type real_ip_recursive ssl_prefer_server_ciphers proxy_buffering proxy_request_buffering internal break keepalive_timeout`)
	put(NotNeeded, "turngate sizes itself", "", `worker_processes worker_rlimit_nofile worker_cpu_affinity worker_priority worker_connections events
		multi_accept use accept_mutex worker_shutdown_timeout thread_pool aio directio sendfile_max_chunk pcre_jit
		types_hash_max_size types_hash_bucket_size server_names_hash_bucket_size server_names_hash_max_size variables_hash_max_size
		variables_hash_bucket_size map_hash_bucket_size map_hash_max_size proxy_headers_hash_max_size proxy_headers_hash_bucket_size
		client_body_buffer_size client_header_buffer_size large_client_header_buffers proxy_buffers proxy_buffer_size
		proxy_busy_buffers_size proxy_temp_file_write_size proxy_max_temp_file_size output_buffers postpone_output connection_pool_size request_pool_size
		open_file_cache open_file_cache_valid open_file_cache_min_uses open_file_cache_errors reset_timedout_connection lingering_close lingering_time lingering_timeout
		ssl_buffer_size keepalive_requests keepalive_disable http2_max_concurrent_streams http2_recv_buffer_size http2_chunk_size proxy_socket_keepalive`)
	put(NotNeeded, "the unit file of the service says it", "", "user pid daemon master_process lock_file env working_directory")
	put(NotNeeded, "turngate has no modules to load", "", "load_module")
	put(NotNeeded, "turngate logs to standard error, which systemd keeps", "", "error_log log_not_found log_subrequest debug_connection")
	put(NotNeeded, "the access log has a form of its own", "", "log_format open_log_file_cache access_log")
	put(NotNeeded, "turngate chooses what TLS uses", "", `ssl_ciphers ssl_conf_command ssl_ecdh_curve ssl_dhparam ssl_session_cache ssl_session_timeout ssl_session_tickets
		ssl_early_data ssl_protocols proxy_ssl_protocols proxy_ssl_ciphers ssl_verify_depth`)
	put(NotNeeded, "several hosts share tickets with tls.ticket_keys", "", "ssl_session_ticket_key")
	put(Changed, "turngate staples nothing: browsers check certificates in other ways", "", "ssl_stapling ssl_stapling_verify ssl_trusted_certificate ssl_stapling_responder ssl_stapling_file")
	put(NotNeeded, "it is for files, which turngate does not serve", "", `types root index autoindex charset charset_types source_charset override_charset etag if_modified_since
		expires try_files alias satisfy disable_symlinks absolute_redirect port_in_redirect server_name_in_redirect merge_slashes msie_padding recursive_error_pages error_page chunked_transfer_encoding`)
	put(NotNeeded, "turngate compresses nothing: upstreams may", "", `gzip gzip_vary gzip_proxied gzip_comp_level gzip_buffers gzip_http_version gzip_types gzip_min_length gzip_disable gzip_static gunzip
		brotli brotli_types brotli_comp_level brotli_static zstd`)
	put(NotNeeded, "header_timeout in [https] bounds how long a client takes", "", "client_header_timeout client_body_timeout send_timeout")
	put(NotNeeded, "addresses of upstreams are looked up again by themselves", "", "resolver resolver_timeout")
	put(NotNeeded, "an upstream that does not answer is passed over, and the next one asked", "", "proxy_next_upstream proxy_next_upstream_tries proxy_next_upstream_timeout")
	put(NotNeeded, "no route is made of it", "", "upstream proxy_set_header proxy_connect_timeout proxy_read_timeout proxy_send_timeout client_max_body_size limit_conn limit_req allow deny set_real_ip_from real_ip_header proxy_ssl_name proxy_ssl_server_name proxy_ssl_trusted_certificate proxy_ssl_certificate proxy_ssl_certificate_key ssl_certificate ssl_certificate_key proxy_hide_header server_name listen")
	put(NotNeeded, "its variable is reported where it is used", "", "map set geo split_clients map_hash")
	put(NotNeeded, "the answer to what is over a limit is 429", "", "limit_conn_status limit_req_status limit_conn_log_level limit_req_log_level limit_conn_dry_run limit_req_dry_run")
	put(NotNeeded, "answers are not stored", "", `proxy_cache proxy_cache_path proxy_cache_valid proxy_cache_key proxy_cache_use_stale proxy_cache_lock proxy_cache_methods
		proxy_temp_path client_body_temp_path fastcgi_temp_path uwsgi_temp_path scgi_temp_path proxy_store proxy_ignore_headers proxy_cache_revalidate proxy_cache_background_update`)
	put(NotNeeded, "an upstream's answers pass as they are", "", "proxy_intercept_errors proxy_pass_header")
	put(Changed, "when a client goes, its request to the upstream ends", "", "proxy_ignore_client_abort")
	put(Lost, "turngate does not rewrite paths", "write the path that the upstream wants in upstream", "rewrite")
	put(Lost, "turngate has no answers of its own to choose", "", "return")
	put(Lost, "routes have no conditions", "", "if")
	put(Lost, "turngate adds no headers to answers", "let the upstream send it", "add_header")
	put(Lost, "turngate does not limit the bandwidth of WebSockets and reports", "", "limit_rate limit_rate_after")
	put(Lost, "turngate copies requests to nobody", "", "mirror mirror_request_body")
	put(Lost, "turngate does not change what upstreams send", "", "sub_filter sub_filter_once sub_filter_types proxy_cookie_path proxy_cookie_domain proxy_cookie_flags addition_types")
	put(Lost, "requests leave from the address that the host chooses", "", "proxy_bind")
	put(Lost, "turngate serves no mail", "", "mail")
	put(Lost, "turngate asks clients for no certificate", "", "ssl_client_certificate ssl_verify_client ssl_crl")
	put(Lost, "turngate reads no key that is encrypted", "decrypt it", "ssl_password_file")
	put(Changed, "headers with an underscore are dropped unless a route has keep_underscores", "", "underscores_in_headers ignore_invalid_headers")
	put(Lost, "turngate has no limit for it", "", "limit_conn_zone limit_req_zone")
	return m
}()

// moduleOf names the module of a directive by its beginning.
func moduleOf(name string) string {
	for prefix, module := range map[string]string{
		"fastcgi_": "FastCGI", "uwsgi_": "uWSGI", "scgi_": "SCGI", "grpc_": "gRPC", "memcached_": "memcached", "auth_": "authentication",
		"js_": "JavaScript", "lua_": "Lua", "perl_": "Perl", "geoip": "GeoIP", "modsecurity": "ModSecurity", "rtmp": "RTMP", "dav_": "WebDAV",
		"otel_": "OpenTelemetry", "opentracing": "OpenTracing", "image_filter": "image filters", "xslt_": "XSLT", "mp4": "MP4", "ssi": "SSI",
		"health_check": "active health checks of another kind; see health_check in [[signaling]]",
	} {
		if strings.HasPrefix(name, prefix) {
			return module
		}
	}
	return ""
}
